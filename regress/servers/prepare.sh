#!/bin/bash
# Makes every PostgreSQL version in PGVERSIONS available: from this machine's
# own packages where it has that version, else as a Debian root under
# REPLSYNC_ROOTS that the servers are started in.
#
#   prepare.sh [MAJOR...]        (default: PGVERSIONS)
#
# A version that Debian does not have (16) is taken from
# REPLSYNC_PG16_BINDIR, or from a root that was put at REPLSYNC_ROOTS/16.
# REPLSYNC_REFRESH=1 makes the roots anew, to get newer minor versions.
. "$(dirname "$0")/common.sh"

here=$(cd "$(dirname "$0")" && pwd)
mirror=${REPLSYNC_MIRROR:-http://deb.debian.org/debian}

need_root

# Part of a root's stamp: a root made by another recipe is made anew.
recipe=$(cat "$0" "$here/root-hook.sh" | sha256sum | cut -c1-12)

# suite_of MAJOR prints the Debian release that carries it.
suite_of() {
	case $1 in
	15) echo bookworm ;;
	17) echo trixie ;;
	18) echo sid ;;
	19) echo experimental ;;
	*) die "Debian has no PostgreSQL $1: set REPLSYNC_PG$1_BINDIR to the directory of its programs" ;;
	esac
}

# install_native MAJOR installs the version from this machine's packages.
#
# Debian starts a cluster "main" when a server package is installed. The tests
# have no use for it, and a user's machine should not get one from them. The
# drop-in that says so lives only as long as the installation.
install_native() {
	local major=$1 dropin=/etc/postgresql-common/createcluster.d/replsync-tests.conf
	[ -x "/usr/lib/postgresql/$major/bin/postgres" ] &&
		[ -d "/usr/include/postgresql/$major/server" ] && return
	mkdir -p "$(dirname "$dropin")"
	echo "create_main_cluster = false" >"$dropin"
	# shellcheck disable=SC2064 # expand now: the variable is local
	trap "rm -f '$dropin'" EXIT
	apt_install "postgresql-$major" "postgresql-server-dev-$major"
	rm -f "$dropin"
	trap - EXIT
}

# make_root MAJOR SUITE DIRECTORY
make_root() {
	local major=$1 suite=$2 dir=$3 preferences
	local -a sources=("deb $mirror $suite main")
	preferences=$(mktemp)
	# experimental is an addition to sid. Only PostgreSQL itself is taken from
	# it: its other packages are in the middle of transitions at any time.
	if [ "$suite" = experimental ]; then
		suite=sid
		sources=("deb $mirror sid main" "deb $mirror experimental main")
		cat >"$preferences" <<-EOF
			Package: postgresql-$major* postgresql-*-$major libpq*
			Pin: release a=experimental
			Pin-Priority: 900
		EOF
	fi
	# Check-Valid-Until: a mirror that lags behind still serves what is wanted.
	# Documentation and translations are a third of the size and never read.
	MAJOR=$major PREFERENCES=$preferences mmdebstrap --quiet --mode=root \
		--variant=essential \
		--include="postgresql-$major,gcc,make,libc6-dev" \
		--aptopt='Acquire::Check-Valid-Until "false"' \
		--aptopt='Acquire::Languages "none"' \
		--aptopt='APT::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--dpkgopt='path-exclude=/usr/share/i18n/*' \
		--setup-hook="'$here/root-hook.sh' setup \"\$1\"" \
		--essential-hook="'$here/root-hook.sh' essential \"\$1\"" \
		--customize-hook="'$here/root-hook.sh' customize \"\$1\"" \
		"$suite" "$dir" "${sources[@]}"
	rm -f "$preferences"
}

# prepare_root MAJOR makes REPLSYNC_ROOTS/MAJOR unless it is there. It appears
# under its name only when it is complete, and one process makes it at a time.
prepare_root() {
	local major=$1 root=$REPLSYNC_ROOTS/$1 suite tmp started
	if [ -z "${REPLSYNC_REFRESH:-}" ] && [ -e "$root/.replsync" ] &&
		{ [ "$(cat "$root/.replsync")" = "$recipe" ] || [ "$(cat "$root/.replsync")" = manual ]; }; then
		return
	fi
	# A root without a stamp was put there by the user.
	if [ -x "$root/usr/lib/postgresql/$major/bin/postgres" ] && [ ! -e "$root/.replsync" ]; then
		return
	fi
	suite=$(suite_of "$major")
	mkdir -p "$REPLSYNC_ROOTS"
	exec 9>"$REPLSYNC_ROOTS/.lock-$major"
	flock 9
	if [ -z "${REPLSYNC_REFRESH:-}" ] && [ -e "$root/.replsync" ] &&
		[ "$(cat "$root/.replsync")" = "$recipe" ]; then
		exec 9>&-
		return
	fi
	# What an interrupted run left. mmdebstrap mounts in a namespace of its
	# own, so nothing can be mounted below; --one-file-system is for those who
	# mounted something there by hand.
	rm -rf --one-file-system "$REPLSYNC_ROOTS/.$major".*
	tmp=$(mktemp -d "$REPLSYNC_ROOTS/.$major.XXXXXX")
	started=$SECONDS
	say "making a root with PostgreSQL $major from Debian $suite"
	make_root "$major" "$suite" "$tmp" 9>&-
	chmod 755 "$tmp"
	echo "$recipe" >"$tmp/.replsync"
	rm -rf --one-file-system "$root"
	mv "$tmp" "$root"
	say "root for PostgreSQL $major: $((SECONDS - started)) s, $(du -sm "$root" | cut -f1) MB"
	exec 9>&-
}

status=0
pids=()
read -ra versions <<<"${*:-$PGVERSIONS}"
for major in "${versions[@]}"; do
	[[ $major =~ ^[0-9]+$ ]] || die "\"$major\" is not a major version"
	if native_bindir "$major" >/dev/null; then
		var="REPLSYNC_PG${major}_BINDIR"
		[ -n "${!var:-}" ] || install_native "$major"
	elif [ ! -e "$REPLSYNC_ROOTS/$major/.replsync" ] && [ ! -d "$REPLSYNC_ROOTS/$major/usr" ] &&
		{ has_candidate "postgresql-$major" || { apt_update && has_candidate "postgresql-$major"; }; }; then
		install_native "$major"
	else
		# Half of the time goes to the network and the disk, so the roots are
		# made side by side.
		prepare_root "$major" &
		pids+=($!)
	fi
done
for pid in "${pids[@]:-}"; do
	[ -z "$pid" ] || wait "$pid" || status=1
done
[ "$status" -eq 0 ] || die "a root could not be made"
