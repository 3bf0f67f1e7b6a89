#!/bin/bash
# Makes every PostgreSQL version in PGVERSIONS available: from this machine's
# own packages where it has that version, else as a Debian root under
# REPLSYNC_ROOTS that the servers are started in.
#
#   prepare.sh [MAJOR...]        (default: PGVERSIONS)
#
# A version that Debian does not have (16, and those before 15 but for 13) is
# taken from REPLSYNC_PG16_BINDIR and the like, or from a root that was put at
# REPLSYNC_ROOTS/16. Those before 15 come without what building needs.
# REPLSYNC_REFRESH=1 makes the roots anew, to get newer minor versions.
. "$(dirname "$0")/common.sh"

here=$(cd "$(dirname "$0")" && pwd)

need_root

# A root's stamp: one that was made by another recipe is made anew.
recipe=$(sha256sum <"$here/root.sh" | cut -c1-12)

# suite_of MAJOR prints the Debian release that carries it.
suite_of() {
	case $1 in
	13) echo bullseye ;;
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
	local -a packages=("postgresql-$major" "postgresql-server-dev-$major")
	[ "$major" -ge "$OLDEST" ] || packages=("postgresql-$major")
	[ -x "/usr/lib/postgresql/$major/bin/postgres" ] &&
		{ [ "$major" -lt "$OLDEST" ] || [ -d "/usr/include/postgresql/$major/server" ]; } && return
	mkdir -p "$(dirname "$dropin")"
	echo "create_main_cluster = false" >"$dropin"
	# shellcheck disable=SC2064 # expand now: the variable is local
	trap "rm -f '$dropin'" EXIT
	apt_install "${packages[@]}"
	rm -f "$dropin"
	trap - EXIT
}

# current is true when prepare_root's root is there and of this recipe.
current() {
	[ -z "${REPLSYNC_REFRESH:-}" ] && [ "$(cat "$root/.replsync" 2>/dev/null)" = "$recipe" ]
}

# prepare_root MAJOR makes REPLSYNC_ROOTS/MAJOR unless it is there. It appears
# under its name only when it is complete, and one process makes it at a time.
prepare_root() {
	local major=$1 root=$REPLSYNC_ROOTS/$1 suite tmp started
	current && return
	# A root without a stamp was put there by the user.
	if [ -x "$root/usr/lib/postgresql/$major/bin/postgres" ] && [ ! -e "$root/.replsync" ]; then
		return
	fi
	suite=$(suite_of "$major")
	mkdir -p "$REPLSYNC_ROOTS"
	exec 9>"$REPLSYNC_ROOTS/.lock-$major"
	flock 9
	# Another process may have made it in the meantime.
	if current; then
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
	if ! "$here/root.sh" "$major" "$suite" "$tmp" >"$REPLSYNC_ROOTS/.log-$major" 2>&1 9>&-; then
		tail -n 50 "$REPLSYNC_ROOTS/.log-$major" >&2
		rm -rf --one-file-system "$tmp"
		return 1
	fi
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
