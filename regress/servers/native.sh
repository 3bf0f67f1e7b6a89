#!/bin/bash
# Prints the major version that is this machine's own: the newest one that is
# installed with what building needs, else the one that apt would install.
. "$(dirname "$0")/common.sh"

for program in $(printf '%s\n' /usr/lib/postgresql/*/bin/postgres | sort -t/ -k5,5rn); do
	major=${program#/usr/lib/postgresql/}
	major=${major%%/*}
	if [ -x "$program" ] && [ "$major" -ge 15 ] && [ -d "/usr/include/postgresql/$major/server" ]; then
		echo "$major"
		exit 0
	fi
done
# The metapackage postgresql depends on the release's version, which is also
# the first part of its own.
version=$(LC_ALL=C apt-cache policy postgresql 2>/dev/null | sed -n 's/^  Candidate: \([0-9]*\)+.*/\1/p')
if [ -z "$version" ]; then
	# The package lists of a fresh machine may be empty. Debian 12 has 15.
	case $(. /etc/os-release && echo "${VERSION_CODENAME:-}") in
	bookworm) version=15 ;;
	trixie) version=17 ;;
	*) die "the PostgreSQL version of this machine is not known: run apt-get update" ;;
	esac
fi
echo "$version"
