#!/usr/bin/env bash
# Runs one step of the Makefile: says what it does, and how long it took.
#   build/step.sh "what it does" command arguments...
set -euo pipefail

what=$1
shift
start=$SECONDS
printf '==> %s\n' "$what"
rc=0
"$@" || rc=$?
took=$((SECONDS - start))
if ((rc != 0)); then
	printf '==> %s: failed after %dm%02ds\n' "$what" $((took / 60)) $((took % 60)) >&2
	exit "$rc"
fi
printf '==> %s: done in %dm%02ds\n' "$what" $((took / 60)) $((took % 60))
