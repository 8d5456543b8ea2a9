#!/usr/bin/env bash
# Runs two commands side by side, which saves time where each waits a lot:
#   build/beside.sh "the one whose output can wait" "the one whose output is shown as it comes"
# Both run to their end, whichever fails, so that neither leaves anything behind.
set -euo pipefail

output=$(mktemp)
trap 'rm -f "$output"' EXIT
bash -c "$1" >"$output" 2>&1 </dev/null &
first=$!
# What is in the background does not hear of Ctrl-C.
trap 'kill -TERM "$first" 2>/dev/null' INT TERM
second_rc=0
bash -c "$2" || second_rc=$?
first_rc=0
wait "$first" || first_rc=$?
cat "$output"
exit $((first_rc != 0 ? first_rc : second_rc))
