// Package primary reads what the slot worker needs from the primary server, over one connection that is kept between
// passes.
//
// A pass costs one round trip ([Client.Read]), and one more for each kind of file it needs ([Client.Snapshots],
// [Client.Mappings]). Nothing is ever written there.
//
// The files come from functions of the extension, which serve nothing else, or, where those cannot be used, from
// pg_read_binary_file(), which has to be granted.
package primary
