#!/bin/bash
# Builds the C part for each version, in the root that it is for, and installs
# it with the Go core that was built before.
#
#   install.sh [MAJOR...]        (default: PGVERSIONS)
#
# COPT          further compiler flags, as for PostgreSQL itself
# ASSERT        the versions that get a build with the assertions of the C
#               part on
. "$(dirname "$0")/common.sh"

need_root
repository=$(cd "$(dirname "$0")/../.." && pwd)
core=replsync_core.so
ASSERT=${ASSERT-17}

[ -f "$repository/$core" ] || die "$core is not built: run make $core first"

# install_into MAJOR
install_into() {
	local major=$1 root='' bindir build inside copt file
	local -a in_root=()
	if bindir=$(native_bindir "$major"); then
		mkdir -p "$REPLSYNC_CACHE/build"
		inside=$REPLSYNC_CACHE/build/$major
	else
		bindir=/usr/lib/postgresql/$major/bin
		root=$REPLSYNC_ROOTS/$major
		[ -x "$root$bindir/postgres" ] || die "PostgreSQL $major is not prepared: run regress/servers/prepare.sh $major"
		inside=/usr/src/replsync
		in_root=(chroot "$root")
	fi
	build=$root$inside
	# A directory of its own for each version: objects of one are not for
	# another, and nothing is left in the repository.
	rm -rf "$build"
	mkdir -p "$build"
	for file in ext sql Makefile replsync.control META.json go.mod go.sum; do
		[ ! -e "$repository/$file" ] || cp -a "$repository/$file" "$build/"
	done
	find "$build" \( -name '*.o' -o -name '*.bc' \) -delete
	cp "$repository"/replsync_core*.so "$build/"
	mkdir -p "$build/regress/selftest"
	cp "$repository"/regress/selftest/{selftest,xmin}.c "$build/regress/selftest/"

	# The server's headers are system headers here: what the flags find in
	# them is not ours to mend.
	copt="-isystem $("${in_root[@]}" "$bindir/pg_config" --includedir-server) ${COPT:-}"
	case " $ASSERT " in
	*" $major "*) copt="$copt -DUSE_ASSERT_CHECKING" ;;
	esac
	# The core is as good as up to date; there is no Go in the roots.
	"${in_root[@]}" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
		make -s -C "$inside" -o "$core" -o gosrc/build/libreplsync_core.a \
		PG_CONFIG="$bindir/pg_config" with_llvm=no COPT="$copt" all install

	# For the tests of the boundary between C and Go.
	local pkglibdir
	pkglibdir=$("${in_root[@]}" "$bindir/pg_config" --pkglibdir)
	if [ -f "$build/replsync_core_selftest.so" ]; then
		install -m 755 "$build/replsync_core_selftest.so" "$root$pkglibdir/"
		# shellcheck disable=SC2086 # flags
		"${in_root[@]}" gcc -shared -fPIC -Wall $copt -o "$pkglibdir/replsync_selftest.so" \
			"$inside/regress/selftest/selftest.c" "$inside/regress/selftest/xmin.c"
	fi
	say "installed into PostgreSQL $major: $root$pkglibdir"
}

read -ra versions <<<"${*:-$PGVERSIONS}"
for major in "${versions[@]}"; do
	install_into "$major"
done
