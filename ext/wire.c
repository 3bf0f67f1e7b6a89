/*
 * Values of variable length between the shim and the core.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "mb/pg_wchar.h"

#include "wire.h"

/* Append a boolean */
void
wire_put_bool(StringInfo out, bool value)
{
	appendStringInfoChar(out, value ? 1 : 0);
}

/* Append a 32-bit integer */
void
wire_put_int32(StringInfo out, int32 value)
{
	appendBinaryStringInfo(out, (char *) &value, sizeof(value));
}

/* Append a 64-bit integer */
void
wire_put_int64(StringInfo out, int64 value)
{
	appendBinaryStringInfo(out, (char *) &value, sizeof(value));
}

/* Append a text of this database, or NULL */
void
wire_put_text(StringInfo out, const char *text)
{
	char *converted;

	if (text == NULL)
	{
		wire_put_int32(out, -1);
		return;
	}
	converted = pg_server_to_any(text, strlen(text), PG_UTF8);
	wire_put_int32(out, (int32) strlen(converted));
	appendStringInfoString(out, converted);
	if (converted != text)
		pfree(converted);
}

/* Error out: the message ends too early */
static void
too_short(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("message of the core of replsync is too short")));
}

/* Take the next bytes */
static void
take(WireReader *in, void *value, size_t size)
{
	if ((size_t) (in->end - in->at) < size)
		too_short();
	memcpy(value, in->at, size);
	in->at += size;
}

/* Take a boolean */
bool
wire_get_bool(WireReader *in)
{
	char value;

	take(in, &value, sizeof(value));
	return value != 0;
}

/* Take a 32-bit integer */
int32
wire_get_int32(WireReader *in)
{
	int32 value;

	take(in, &value, sizeof(value));
	return value;
}

/* Take a 64-bit integer */
int64
wire_get_int64(WireReader *in)
{
	int64 value;

	take(in, &value, sizeof(value));
	return value;
}

/* Append as much of a text in UTF-8 as this database's encoding has; returns how many bytes of it that were */
static int
append_convertible(StringInfo out, const char *text, int length)
{
	int encoding = GetDatabaseEncoding();
	Oid proc;
	int converted = 0;

	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
	{
		converted = pg_encoding_verifymbstr(encoding, text, length);
		appendBinaryStringInfo(out, text, converted);
		return converted;
	}
	while (converted < length && !IS_HIGHBIT_SET(text[converted]))
		converted++;
	appendBinaryStringInfo(out, text, converted);
	proc = converted < length && IsTransactionState() ? FindDefaultConversionProc(PG_UTF8, encoding) : InvalidOid;
	if (OidIsValid(proc))
	{
		int room = (length - converted) * MAX_CONVERSION_GROWTH + 1;

		enlargeStringInfo(out, room);
		converted += pg_do_encoding_conversion_buf(proc, PG_UTF8, encoding,
												   (unsigned char *) unconstify(char *, text) + converted,
												   length - converted, (unsigned char *) out->data + out->len,
												   room, true);
		out->len += (int) strlen(out->data + out->len);
	}
	return converted;
}

/* Make a text of this database from UTF-8, with question marks for what it has no characters for */
static char *
to_server(const char *text, int length, bool *exact)
{
	StringInfoData out;
	int at = 0;

	initStringInfo(&out);
	for (;;)
	{
		at += append_convertible(&out, text + at, length - at);
		if (at >= length)
			return out.data;
		*exact = false;
		appendStringInfoChar(&out, '?');
		at += Min(pg_utf_mblen((const unsigned char *) text + at), length - at);
	}
}

/* Take a text, as one of this database in the current memory context, or NULL; exact becomes false if it is not the same */
char *
wire_get_name(WireReader *in, bool *exact)
{
	int32 length = wire_get_int32(in);
	const char *text = in->at;

	if (length < 0)
		return NULL;
	if ((size_t) (in->end - in->at) < (size_t) length)
		too_short();
	in->at += length;
	return to_server(text, length, exact);
}

/* The same, where it is only to be read */
char *
wire_get_text(WireReader *in)
{
	bool exact;

	return wire_get_name(in, &exact);
}
