#!/bin/bash
# Puts extensions of others beside a server, to compare with.
#
#   extras.sh MAJOR PACKAGE...
#
# A root gets the packages' files, with this machine's apt, as it has none itself. They are no part of its recipe: a
# root that is made anew comes without them. It fails where apt cannot get a package.
. "$(dirname "$0")/common.sh"

need_root
major=$1
shift
root=$REPLSYNC_ROOTS/$major

if native_bindir "$major" >/dev/null; then
	var="REPLSYNC_PG${major}_BINDIR"
	[ -z "${!var:-}" ] || die "PostgreSQL $major at ${!var} did not come from a package"
	apt_install "$@"
	exit 0
fi
[ -x "$root/usr/lib/postgresql/$major/bin/postgres" ] || die "PostgreSQL $major is not prepared: run regress/servers/prepare.sh $major"

# What was put there is listed, with its version, one package a line.
have=$root/.replsync-extras
touch "$have"
missing=()
for package in "$@"; do
	grep -q "^$package " "$have" || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

say "getting ${missing[*]} for PostgreSQL $major"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/lists/partial" "$tmp/archives/partial" "$tmp/debs"
cd "$tmp/debs"
apt=(apt-get -q -y -o APT::Sandbox::User=root -o Acquire::Check-Valid-Until=false -o Acquire::Languages=none
	-o Acquire::Retries=2 -o Dpkg::Use-Pty=0
	-o Dir::Etc::SourceList="$root/etc/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
	-o Dir::Etc::PreferencesParts="$root/etc/apt/preferences.d"
	-o Dir::Etc::Trusted=/usr/share/keyrings/debian-archive-keyring.gpg
	-o Dir::State::Lists="$tmp/lists" -o Dir::State::status="$root/var/lib/dpkg/status" -o Dir::Cache="$tmp")
output=$("${apt[@]}" update 2>&1 && "${apt[@]}" download "${missing[@]}" 2>&1) || {
	printf '%s\n' "$output" | tail -n 20 >&2
	die "could not get ${missing[*]}"
}
for package in ./*.deb; do
	dpkg-deb -x "$package" "$root"
	# shellcheck disable=SC2016 # for dpkg-deb
	dpkg-deb -W --showformat='${Package} ${Version}\n' "$package" >>"$have"
done
