#!/bin/bash
# Makes a Debian root with one PostgreSQL version, and what its extensions are
# built with unless it is only a publisher: root.sh MAJOR SUITE DIRECTORY
#
# mmdebstrap calls it again for the stages in between: root.sh hook STAGE ROOT
#
# A change of this file makes the roots out of date.
set -euo pipefail

make_root() {
	local suite=$2 dir=$3
	local mirror=${REPLSYNC_MIRROR:-http://deb.debian.org/debian}
	local -a sources=("deb $mirror $suite main") without_jit=()
	local packages="postgresql-$1,gcc,make,libc6-dev"
	export MAJOR=$1 PREFERENCES
	PREFERENCES=$(mktemp)
	# experimental is an addition to sid. Only PostgreSQL itself is taken from
	# it: its other packages are in the middle of transitions at any time.
	if [ "$suite" = experimental ]; then
		suite=sid
		sources=("deb $mirror sid main" "deb $mirror experimental main")
		cat >"$PREFERENCES" <<-EOF
			Package: postgresql-$MAJOR* postgresql-*-$MAJOR libpq*
			Pin: release a=experimental
			Pin-Priority: 900
		EOF
	fi
	# The JIT, which publishers do without, is two fifths of what is left.
	if publishes_only; then
		packages=postgresql-$MAJOR
		without_jit=(--dpkgopt='path-exclude=/usr/lib/*/libLLVM*' --dpkgopt='path-exclude=/usr/lib/*/libz3*'
			--dpkgopt='path-exclude=/usr/lib/postgresql/*/lib/llvmjit*' --dpkgopt='path-exclude=/usr/lib/postgresql/*/lib/bitcode/*')
	fi
	# Check-Valid-Until: a mirror that lags behind still serves what is wanted.
	# Documentation and translations are a third of the size and never read.
	mmdebstrap --mode=root --variant=essential \
		--include="$packages" \
		--aptopt='Acquire::Check-Valid-Until "false"' \
		--aptopt='Acquire::Languages "none"' \
		--aptopt='APT::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--dpkgopt='path-exclude=/usr/share/i18n/*' \
		"${without_jit[@]}" \
		--setup-hook="'$0' hook setup \"\$1\"" \
		--essential-hook="'$0' hook essential \"\$1\"" \
		--customize-hook="'$0' hook customize \"\$1\"" \
		"$suite" "$dir" "${sources[@]}"
	rm -f "$PREFERENCES"
	chmod 755 "$dir"
}

# A version that the extension is never built for.
publishes_only() { [ "$MAJOR" -lt "${OLDEST:?}" ]; }

# Before any package is installed.
hook_setup() {
	if [ -s "$PREFERENCES" ]; then
		mkdir -p "$1/etc/apt/preferences.d"
		cp "$PREFERENCES" "$1/etc/apt/preferences.d/postgresql"
	fi
}

# Before PostgreSQL: no cluster is to be made at its installation.
hook_essential() {
	mkdir -p "$1/etc/postgresql-common/createcluster.d"
	echo "create_main_cluster = false" >"$1/etc/postgresql-common/createcluster.d/replsync-tests.conf"
}

# postgresql-server-dev-N depends on clang and LLVM, 600 MB that only bitcode
# for the JIT needs: the files are taken without them. libpq-dev has
# postgres_ext.h, which every server header includes up to 17, and libssl-dev is
# for libpq/libpq-be.h.
hook_customize() {
	local tmp package
	if ! publishes_only; then
		tmp=$(mktemp -d)
		cd "$tmp"
		APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -qq -o APT::Sandbox::User=root download \
			"postgresql-server-dev-$MAJOR" libpq-dev libssl-dev >/dev/null
		for package in ./*.deb; do
			dpkg-deb -x "$package" "$1"
		done
		cd /
		rm -rf "$tmp"
	fi
	rm -rf "$1"/usr/share/doc "$1"/usr/share/man "$1"/var/cache/apt/*.bin \
		"$1"/var/lib/apt/lists/*_dists_*
	# What the servers and programs look at, whatever this machine's is.
	echo "127.0.0.1 localhost" >"$1/etc/hosts"
}

if [ "$1" = hook ]; then
	"hook_$2" "$3"
else
	make_root "$@"
fi
