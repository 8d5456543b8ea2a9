#!/usr/bin/env bash
# Checks that this machine has what the given purposes need, and installs what
# is missing with the machine's own package manager, if run as root. Where it
# cannot, it says what to do. Changes nothing if all is there.
#   build/deps.sh build      to compile the programs and the image
#   build/deps.sh cluster    to build and run the test cluster; needs root
set -euo pipefail

cc=${CC:-gcc}

has() { command -v "$1" >/dev/null 2>&1; }

# have_NAME: is it there?  apt_NAME, dnf_NAME: the package that brings it.
have_compiler() { has "${cc%% *}"; }
# A linker that works tells where libc.a is; without it, it repeats the name.
have_static_libc() { have_compiler && [[ $($cc -print-file-name=libc.a) == /* ]]; }
have_pkgconfig() { has pkg-config; }
have_seccomp() { has pkg-config && pkg-config --exists libseccomp; }

package() {
	case $1/$2 in
	apt-get/compiler | dnf/compiler) echo gcc ;;
	apt-get/static_libc) echo libc6-dev ;;
	apt-get/pkgconfig) echo pkg-config ;;
	apt-get/seccomp) echo libseccomp-dev ;;
	dnf/static_libc) echo glibc-static ;;
	dnf/pkgconfig) echo pkgconf-pkg-config ;;
	dnf/seccomp) echo libseccomp-devel ;;
	*) echo "$2" ;;
	esac
}

missing() {
	local need
	for need in "$@"; do
		"have_$need" || echo "$need"
	done
}

install() {
	case $1 in
	apt-get)
		shift
		export DEBIAN_FRONTEND=noninteractive
		apt-get -qq update </dev/null
		apt-get -qq install --yes --no-install-recommends "$@" </dev/null >/dev/null
		;;
	dnf)
		shift
		dnf --quiet --assumeyes install "$@" </dev/null
		;;
	esac
}

if ! has go; then
	echo "deps: Go is missing. Install it from https://go.dev/dl/, in the version that go.mod names or newer." >&2
	exit 1
fi

needs=(compiler static_libc)
for purpose in "$@"; do
	case $purpose in
	build) ;;
	cluster)
		needs+=(pkgconfig seccomp)
		if ((EUID != 0)); then
			echo "deps: the test cluster makes namespaces, mounts and cgroups, which needs root: run this as root." >&2
			exit 1
		fi
		;;
	*)
		echo "deps: unknown purpose $purpose: use build or cluster" >&2
		exit 2
		;;
	esac
done

mapfile -t lacking < <(missing "${needs[@]}")
((${#lacking[@]} == 0)) && exit 0

manager=
for candidate in apt-get dnf; do
	if has "$candidate"; then
		manager=$candidate
		break
	fi
done
if [[ -z $manager ]]; then
	echo "deps: missing: ${lacking[*]}. Install them with this machine's package manager (neither apt-get nor dnf was found)." >&2
	exit 1
fi
packages=()
for need in "${lacking[@]}"; do
	packages+=("$(package "$manager" "$need")")
done
if ((EUID != 0)); then
	echo "deps: missing packages. Run as root: $manager install ${packages[*]}" >&2
	exit 1
fi
echo "deps: installing ${packages[*]} with $manager"
install "$manager" "${packages[@]}"
mapfile -t lacking < <(missing "${needs[@]}")
if ((${#lacking[@]} > 0)); then
	echo "deps: still missing after installing ${packages[*]}: ${lacking[*]}" >&2
	exit 1
fi
