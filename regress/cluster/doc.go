// Package cluster starts real PostgreSQL servers for tests: a primary, its
// standbys, logical consumers, and peers that misbehave.
//
// A server is one line, and goes away with the test:
//
//	for _, major := range cluster.Versions(t) {
//		t.Run(strconv.Itoa(major), func(t *testing.T) {
//			primary := cluster.New(t, major, cluster.Preload("replsync"))
//			standby := primary.Standby(t)
//			primary.Exec(t, "postgres", "create table t (id int primary key)")
//			primary.WaitReplayed(t, standby)
//			primary.Kill9(t)
//			standby.Promote(t)
//		})
//	}
//
// # Where the servers come from
//
// The major versions to test are in PGVERSIONS, and those of servers that are
// only publishers in PUBLISHERS. Each is looked for in this
// order: the directory named by REPLSYNC_PG<major>_BINDIR, this machine's
// /usr/lib/postgresql/<major>/bin, and the Debian root
// REPLSYNC_ROOTS/<major>, in which the server then runs under chroot. A version
// that is nowhere is a failure and never a skip. regress/servers makes the
// roots and `make check` calls it.
//
// # What the servers run as
//
// PostgreSQL refuses to run as root, and chroot needs root: the tests run as
// root and the servers as the user postgres of the root that they run in. Each
// test process has one directory under /var/tmp (REPLSYNC_TMP overrides it),
// which is visible under the same name inside every root. The mounts that this
// needs are made in a mount namespace of each server's own, so they vanish with
// it. When the test process dies, the kernel has the postmasters shut down at
// once; should a machine go down in between, the next test process removes what
// is left.
//
// # Failures
//
// Every wait has a deadline and polls; there are no fixed sleeps. When a test
// fails, the end of each of its servers' logs is part of the output.
// REPLSYNC_KEEP=1 leaves the data directories where they are.
package cluster
