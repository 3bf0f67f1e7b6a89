#!/bin/bash
# Installs the tools that the given purposes need and this machine lacks.
#
#   tools.sh [build|servers|lint]...
. "$(dirname "$0")/common.sh"

packages=()
for purpose in "${@:-build}"; do
	case $purpose in
	build) packages+=(gcc make libc6-dev) ;;
	# util-linux has unshare and setpriv, with which the servers are started.
	# Without mount, which a small image may not have, mmdebstrap goes on
	# without /proc.
	servers) packages+=(mmdebstrap debian-archive-keyring ca-certificates mount util-linux) ;;
	lint) packages+=(clang-format shellcheck) ;;
	*) die "unknown purpose \"$purpose\"" ;;
	esac
done

# A compiler that did not come from a package is as good.
present=()
for package in "${packages[@]}"; do
	case $package in
	gcc | make) command -v "$package" >/dev/null && continue ;;
	esac
	present+=("$package")
done
[ ${#present[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
	for package in "${present[@]}"; do
		[ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || need_root
	done
fi
apt_install "${present[@]}"
