/*
 * Values of variable length between the shim and the core: integers in the machine's byte order, texts as
 * an int32 length and the bytes, -1 for NULL. Texts are UTF-8 on the way and have the database's encoding here, which takes a
 * transaction to convert.
 */
#ifndef REPLSYNC_WIRE_H
#define REPLSYNC_WIRE_H

#include "lib/stringinfo.h"

typedef struct WireReader
{
	const char *at;
	const char *end;
} WireReader;

extern void wire_put_bool(StringInfo out, bool value);
extern void wire_put_int32(StringInfo out, int32 value);
extern void wire_put_int64(StringInfo out, int64 value);
extern void wire_put_text(StringInfo out, const char *text);

extern bool wire_get_bool(WireReader *in);
extern int32 wire_get_int32(WireReader *in);
extern int64 wire_get_int64(WireReader *in);
extern char *wire_get_text(WireReader *in);
extern char *wire_get_name(WireReader *in, bool *exact);

#endif
