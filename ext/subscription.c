/*
 * A subscription, as the core is told of it, and the rules for its sequences.
 */
#include "replsync.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_subscription.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"
#if PG_VERSION_NUM >= 160000
#include "nodes/value.h"
#endif

#include "sequence.h"

/* Find a subscription of this database that the caller may manage; as ALTER SUBSCRIPTION does */
Oid
replsync_own_subscription(const char *name)
{
	Oid subscription = get_subscription_oid(name, false);
	bool owns;

#if PG_VERSION_NUM >= 160000
	owns = object_ownercheck(SubscriptionRelationId, subscription, GetUserId());
#else
	owns = pg_subscription_ownercheck(subscription, GetUserId());
#endif
	if (!owns)
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_SUBSCRIPTION, name);
	return subscription;
}

/* Append an error, or that there is none */
static void
put_error(StringInfo out, const ErrorData *edata)
{
	wire_put_text(out, edata ? unpack_sql_state(edata->sqlerrcode) : "");
	wire_put_text(out, edata ? edata->message : "");
	wire_put_text(out, edata && edata->detail ? edata->detail : "");
	wire_put_text(out, edata && edata->hint ? edata->hint : "");
}

#if PG_VERSION_NUM >= 190000
/* Append the connection string; that of a server (CREATE SUBSCRIPTION ... SERVER) may not be had */
static void
put_conninfo(StringInfo out, Subscription *subscription)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	char *volatile conninfo = NULL;
	ErrorData *volatile edata = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		conninfo = MemoryContextStrdup(context, SubscriptionConninfo(subscription));
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	wire_put_text(out, conninfo ? conninfo : "");
	put_error(out, edata);
}
#else
/* Append the connection string */
static void
put_conninfo(StringInfo out, Subscription *subscription)
{
	wire_put_text(out, subscription->conninfo);
	put_error(out, NULL);
}
#endif

/* Append a subscription; replsync_put_rules() follows */
void
replsync_put_subscription(StringInfo out, Oid oid)
{
	Subscription *subscription = GetSubscription(oid, false);
	bool superuser_owner = superuser_arg(subscription->owner);
	ListCell *cell;

	wire_put_int32(out, (int32) oid);
	wire_put_text(out, subscription->name);
	wire_put_bool(out, subscription->enabled);
	wire_put_int32(out, list_length(subscription->publications));
	foreach (cell, subscription->publications)
		wire_put_text(out, strVal(lfirst(cell)));
	wire_put_text(out, subscription->slotname ? subscription->slotname : "");
	put_conninfo(out, subscription);
	wire_put_bool(out, superuser_owner);
#if PG_VERSION_NUM >= 160000
	wire_put_bool(out, subscription->passwordrequired && !superuser_owner);
#else
	wire_put_bool(out, false);
#endif
}

/* Append an array of texts */
static void
put_texts(StringInfo out, ArrayType *array)
{
	Datum *values;
	bool *nulls;
	int count;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &count);
	wire_put_int32(out, count);
	for (int i = 0; i < count; i++)
		wire_put_text(out, nulls[i] ? "" : TextDatumGetCString(values[i]));
}

/* Append rules; replsync_put_generations() follows */
void
replsync_put_rules(StringInfo out, bool all, ArrayType *include, ArrayType *exclude, int64 margin)
{
	wire_put_bool(out, all);
	put_texts(out, include);
	put_texts(out, exclude);
	wire_put_int64(out, margin);
}

/* Append the generations and the watermark of a subscription that has none yet */
void
replsync_put_no_state(StringInfo out)
{
	wire_put_int64(out, 1);
	wire_put_int64(out, 0);
	wire_put_int64(out, 0);
	wire_put_int64(out, 0);
	wire_put_int32(out, 0);
	wire_put_int64(out, 0);
	wire_put_bool(out, false);
}

/* Microseconds since 1970 */
static int64
to_unix_micros(TimestampTz at)
{
	return at + (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * USECS_PER_SEC;
}

/*
 * Append rules and state as the tables have them; false if there are none. Rules that were restored from a dump, or that
 * another server has written, are found by the name of the subscription. Between replsync_spi_begin() and
 * replsync_spi_end().
 */
bool
replsync_put_stored_rules(StringInfo out, Oid subscription, const char *name)
{
	static const Oid types[] = {OIDOID, NAMEOID, INT8OID};
	Datum values[] = {ObjectIdGetDatum(subscription), DirectFunctionCall1(namein, CStringGetDatum(name)),
					  Int64GetDatum((int64) GetSystemIdentifier())};
	Datum value;
	bool isnull;
	bool all;
	ArrayType *include;
	ArrayType *exclude;

	if (replsync_spi("SELECT s.selection = 'all', s.include, s.exclude, s.margin, s.requested_generation,"
					 " coalesce(w.done_generation, 0), coalesce(w.publisher_lsn, '0/0'),"
					 " coalesce(w.system_identifier, 0), coalesce(w.timeline, 0), w.written_at,"
					 " w.subscription IS NULL AND NOT (s.written_by = $3 AND EXISTS"
					 " (SELECT FROM replsync.sequence_member m WHERE m.subscription = s.subscription))"
					 " FROM replsync.sequence_selection s"
					 " LEFT JOIN replsync.sequence_watermark w ON w.subscription = s.subscription AND s.written_by = $3"
					 " WHERE s.subscription = $1 AND s.written_by = $3 OR s.subscription_name = $2"
					 " ORDER BY s.subscription = $1 AND s.written_by = $3 AND (w.subscription IS NOT NULL OR EXISTS"
					 " (SELECT FROM replsync.sequence_member m WHERE m.subscription = s.subscription)) DESC,"
					 " s.subscription_name <> $2, s.subscription <> $1 LIMIT 1",
					 3, types, values) == 0)
		return false;
	all = DatumGetBool(replsync_spi_value(0, 1, &isnull));
	include = DatumGetArrayTypeP(replsync_spi_value(0, 2, &isnull));
	exclude = DatumGetArrayTypeP(replsync_spi_value(0, 3, &isnull));
	replsync_put_rules(out, all, include, exclude, DatumGetInt64(replsync_spi_value(0, 4, &isnull)));
	wire_put_int64(out, DatumGetInt64(replsync_spi_value(0, 5, &isnull)));
	wire_put_int64(out, DatumGetInt64(replsync_spi_value(0, 6, &isnull)));
	wire_put_int64(out, (int64) DatumGetLSN(replsync_spi_value(0, 7, &isnull)));
	wire_put_int64(out, DatumGetInt64(replsync_spi_value(0, 8, &isnull)));
	wire_put_int32(out, DatumGetInt32(replsync_spi_value(0, 9, &isnull)));
	value = replsync_spi_value(0, 10, &isnull);
	wire_put_int64(out, isnull ? 0 : to_unix_micros(DatumGetTimestampTz(value)));
	wire_put_bool(out, DatumGetBool(replsync_spi_value(0, 11, &isnull)));
	return true;
}
