// Package slotsync is the slot worker: on a physical standby it keeps copies of the primary's logical slots, so that a
// consumer can go on from this server after a promotion.
//
// A pass ([Worker.pass]) reads the primary once, decides for each slot without any I/O ([decide], [judge]), and then
// carries the plans out: new copies first, then moves, then drops, then the handshake that makes idle slots safe. Copies
// are made before others move, since a move raises what this standby asks the primary to keep.
//
// A copy is safe to use after a promotion when three things hold. Decoding from its restart_lsn reaches consistency at
// or before its confirmed_flush_lsn: it has the primary's positions and, where the primary has one, the snapshot file
// there, so it starts as the primary would. The WAL and the mapping files from there on are here: they are reserved before
// they are looked at. And no catalog row that decoding needs was removed: see ready.go.
//
// A copy for which the last one is not known yet is stored under a plugin that does not exist, so that it cannot be
// taken for a usable slot even if this server is promoted that moment and the worker is dead.
package slotsync
