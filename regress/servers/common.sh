# shellcheck shell=bash
# Shared by the scripts in this directory; sourced, never run.

set -euo pipefail

# REPLSYNC_CACHE holds everything that may be thrown away and made again:
# the roots, the template data directories, the build directories, the linter.
REPLSYNC_CACHE=${REPLSYNC_CACHE:-/var/cache/replsync}
REPLSYNC_ROOTS=${REPLSYNC_ROOTS:-$REPLSYNC_CACHE/roots}
PGVERSIONS=${PGVERSIONS:-15 17 18 19}
export REPLSYNC_CACHE REPLSYNC_ROOTS PGVERSIONS

# The oldest version that the extension is built for. One below is only ever a
# publisher, and needs nothing but the server.
OLDEST=15
export OLDEST

# The scripts in /usr/sbin are needed, and an unprivileged caller's PATH may
# have come through sudo without them.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

say() { printf '== %s\n' "$*"; }

die() {
	printf 'replsync: %s\n' "$*" >&2
	exit 1
}

need_root() {
	[ "$(id -u)" -eq 0 ] || die "$0 must run as root (make check and make demo see to that with sudo)"
}

# native_bindir MAJOR prints the directory of that version's programs on this
# machine, or fails.
native_bindir() {
	local major=$1 var="REPLSYNC_PG$1_BINDIR"
	if [ -n "${!var:-}" ]; then
		printf '%s\n' "${!var}"
	elif [ -x "/usr/lib/postgresql/$major/bin/postgres" ]; then
		printf '%s\n' "/usr/lib/postgresql/$major/bin"
	else
		return 1
	fi
}

# has_candidate PACKAGE is true when apt would install PACKAGE here without
# being told another release.
has_candidate() {
	local policy
	# Not through a pipe: grep -q would end it early, and that counts as a failure.
	policy=$(LC_ALL=C apt-cache policy "$1" 2>/dev/null)
	[[ $policy =~ "Candidate: "[^\(] ]]
}

# apt_update refreshes the package lists at most once in a run of the scripts,
# and not at all where nothing is missing, so that a prepared machine works
# offline.
apt_update() {
	[ -n "${REPLSYNC_APT_UPDATED:-}" ] && return
	say "apt-get update"
	apt-get -q update >/dev/null
	export REPLSYNC_APT_UPDATED=1
}

# apt_install PACKAGE... installs what is missing of the named packages.
apt_install() {
	local missing=() package
	for package in "$@"; do
		if [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
			missing+=("$package")
		fi
	done
	[ ${#missing[@]} -eq 0 ] && return
	apt_update
	say "apt-get install ${missing[*]}"
	# Another apt (unattended-upgrades, a first boot) may hold the lock. What
	# the packages have to say is of interest only when it went wrong.
	local output
	output=$(DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get -q -y \
		-o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
		install --no-install-recommends "${missing[@]}" 2>&1) || {
		printf '%s\n' "$output" >&2
		die "could not install ${missing[*]}"
	}
}
