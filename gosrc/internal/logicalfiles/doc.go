// Package logicalfiles writes what the decoding of a copied slot needs beside WAL: serialized snapshots
// (pg_logical/snapshots, snapbuild.c) and the mappings that rewrites of catalogs leave (pg_logical/mappings, rewriteheap.c).
//
// The server writes both kinds on its own as well, at the same time and with the same content: "all files created need to
// contain the same data anyway" (SnapBuildSerialize). Nothing here ever removes a file; checkpoints do.
package logicalfiles
