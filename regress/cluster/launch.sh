# Runs a program as an unprivileged user, in a root where one is given.
#
#   launch.sh ROOT BASE UID GID DEATHSIG DIR PROGRAM ARG...
#
# It replaces itself at every step, so the caller's child is the program itself.
# With a root it runs in a mount namespace of its own: nothing that is mounted
# here is seen outside of it or needs to be unmounted.
# shellcheck disable=SC2086 # $as_user is several words
set -eu
root=$1 base=$2 uid=$3 gid=$4 deathsig=$5 dir=$6
shift 6

as_user="setpriv --reuid $uid --regid $gid --clear-groups"
# The signal has to be asked for after the change of user, which clears it.
if [ -n "$deathsig" ]; then
	as_user="$as_user --pdeathsig $deathsig"
fi

if [ -z "$root" ]; then
	cd "$dir"
	exec $as_user -- "$@"
fi

if [ -n "$base" ]; then
	mkdir -p "$root$base"
	mount --bind "$base" "$root$base"
fi
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
# shellcheck disable=SC2016 # for the inner shell
exec chroot "$root" /bin/sh -c 'cd "$0" && exec "$@"' "$dir" $as_user -- "$@"
