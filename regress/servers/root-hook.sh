#!/bin/bash
# Called by mmdebstrap for prepare.sh: root-hook.sh STAGE ROOT
set -euo pipefail
stage=$1 root=$2

case $stage in
setup)
	# Before any package.
	if [ -s "$PREFERENCES" ]; then
		mkdir -p "$root/etc/apt/preferences.d"
		cp "$PREFERENCES" "$root/etc/apt/preferences.d/postgresql"
	fi
	;;
essential)
	# Before PostgreSQL: no cluster is to be made at its installation.
	mkdir -p "$root/etc/postgresql-common/createcluster.d"
	echo "create_main_cluster = false" >"$root/etc/postgresql-common/createcluster.d/replsync-tests.conf"
	;;
customize)
	# postgresql-server-dev-N depends on clang and LLVM, 600 MB that only
	# bitcode for the JIT needs: the files are taken without them. libpq-dev
	# has postgres_ext.h, which every server header includes up to 17, and
	# libssl-dev is for libpq/libpq-be.h.
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	cd "$tmp"
	APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -q -o APT::Sandbox::User=root download \
		"postgresql-server-dev-$MAJOR" libpq-dev libssl-dev
	for package in ./*.deb; do
		dpkg-deb -x "$package" "$root"
	done
	rm -rf "$root"/usr/share/doc "$root"/usr/share/man "$root"/var/cache/apt/*.bin \
		"$root"/var/lib/apt/lists/*_dists_*
	# What the servers and programs look at, whatever this machine's is.
	echo "127.0.0.1 localhost" >"$root/etc/hosts"
	;;
esac
