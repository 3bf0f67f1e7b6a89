/*
 * What sequence workers keep in the extension's tables. They write there only what changes an answer.
 */
#include "replsync.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_subscription.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"

#include "sequence.h"

/* The name and the state of a subscription's rows, next to what the catalog says now. */
static const char reconcile_query[] =
	"SELECT r.subscription, r.subscription_name, by_oid.subname, by_name.oid,"
	" EXISTS (SELECT FROM replsync.sequence_watermark w WHERE w.subscription = r.subscription)"
	" OR EXISTS (SELECT FROM replsync.sequence_member m WHERE m.subscription = r.subscription), r.written_by"
	" FROM replsync.sequence_selection r"
	" JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()"
	" LEFT JOIN pg_catalog.pg_subscription by_oid ON by_oid.oid = r.subscription AND by_oid.subdbid = d.oid"
	" LEFT JOIN pg_catalog.pg_subscription by_name ON by_name.subname = r.subscription_name AND by_name.subdbid = d.oid";

/* Run a statement about one subscription */
static void
run_for(const char *sql, Oid subscription)
{
	static const Oid types[] = {OIDOID};
	Datum values[] = {ObjectIdGetDatum(subscription)};

	(void) replsync_spi(sql, 1, types, values);
}

/* Forget a subscription that was dropped */
static void
forget_subscription(Oid subscription)
{
	run_for("DELETE FROM replsync.sequence_selection WHERE subscription = $1", subscription);
	run_for("DELETE FROM replsync.sequence_member WHERE subscription = $1", subscription);
	run_for("DELETE FROM replsync.sequence_problem WHERE subscription = $1", subscription);
	run_for("DELETE FROM replsync.sequence_watermark WHERE subscription = $1", subscription);
	replsync_live_forget(subscription);
}

/* The rows of a subscription get another oid */
static void
renumber_subscription(Oid from, Oid to)
{
	static const Oid types[] = {OIDOID, OIDOID};
	Datum values[] = {ObjectIdGetDatum(from), ObjectIdGetDatum(to)};

	(void) replsync_spi("UPDATE replsync.sequence_member SET subscription = $2 WHERE subscription = $1", 2, types, values);
	(void) replsync_spi("UPDATE replsync.sequence_problem SET subscription = $2 WHERE subscription = $1", 2, types, values);
	(void) replsync_spi("UPDATE replsync.sequence_watermark SET subscription = $2 WHERE subscription = $1", 2, types, values);
	(void) replsync_spi("UPDATE replsync.sequence_selection SET subscription = $2 WHERE subscription = $1", 2, types, values);
	replsync_live_forget(from);
}

/* A subscription has another name */
static void
rename_subscription(Oid subscription, const char *name)
{
	static const Oid types[] = {OIDOID, NAMEOID};
	Datum values[] = {ObjectIdGetDatum(subscription),
					  DirectFunctionCall1(namein, CStringGetDatum(name))};

	(void) replsync_spi("UPDATE replsync.sequence_selection SET subscription_name = $2 WHERE subscription = $1",
						2, types, values);
}

/* The rows of a subscription */
typedef struct StoredSubscription
{
	Oid oid;
	const char *name;
	const char *name_now; /* NULL: there is none with that oid */
	bool known;			  /* this server has synchronized it */
	bool foreign;		  /* another server has written them */
	Oid becomes;		  /* its new oid: it was restored from a dump, or comes from another server */
} StoredSubscription;

/* Read what is stored; in the memory of the caller's SPI procedure */
static StoredSubscription *
read_stored(int *count)
{
	uint64 rows = replsync_spi(reconcile_query, 0, NULL, NULL);
	SPITupleTable *table = SPI_tuptable;
	StoredSubscription *stored = palloc0(sizeof(*stored) * Max(rows, 1));

	for (uint64 i = 0; i < rows; i++)
	{
		HeapTuple row = table->vals[i];
		bool isnull;
		Datum by_name;

		stored[i].oid = DatumGetObjectId(SPI_getbinval(row, table->tupdesc, 1, &isnull));
		stored[i].name = SPI_getvalue(row, table->tupdesc, 2);
		stored[i].name_now = SPI_getvalue(row, table->tupdesc, 3);
		stored[i].known = DatumGetBool(SPI_getbinval(row, table->tupdesc, 5, &isnull));
		stored[i].foreign = (uint64) DatumGetInt64(SPI_getbinval(row, table->tupdesc, 6, &isnull)) != GetSystemIdentifier();
		by_name = SPI_getbinval(row, table->tupdesc, 4, &isnull);
		/* Where its oid and its name are those of two, the oid counts if this server has synchronized it. */
		if (!isnull && DatumGetObjectId(by_name) != stored[i].oid && (stored[i].name_now == NULL || !stored[i].known))
			stored[i].becomes = DatumGetObjectId(by_name);
	}
	*count = (int) rows;
	return stored;
}

/* Are there rows of another server? */
static bool
any_foreign(const StoredSubscription *stored, int count)
{
	for (int i = 0; i < count; i++)
	{
		if (stored[i].foreign)
			return true;
	}
	return false;
}

/* Is there another one that has the new oid of this one already, and keeps it? */
static bool
is_taken(const StoredSubscription *stored, int count, int which)
{
	for (int i = 0; i < count; i++)
	{
		if (OidIsValid(stored[i].becomes) ? i < which && stored[i].becomes == stored[which].becomes
										  : stored[i].oid == stored[which].becomes)
			return true;
	}
	return false;
}

/* Give new oids where they are free; names may have been swapped, so all leave the old ones first */
static void
renumber_all(StoredSubscription *stored, int count)
{
	bool again = true;

	while (again)
	{
		again = false;
		for (int i = 0; i < count; i++)
		{
			if (!OidIsValid(stored[i].becomes) || !is_taken(stored, count, i))
				continue;
			stored[i].becomes = InvalidOid;
			again = true;
		}
	}
	/* No subscription, and no rules that wait for theirs, have an oid as small as those in between. */
	for (int i = 0; i < count; i++)
	{
		if (OidIsValid(stored[i].becomes))
			renumber_subscription(stored[i].oid, (Oid) i + 1);
	}
	for (int i = 0; i < count; i++)
	{
		if (OidIsValid(stored[i].becomes))
			renumber_subscription((Oid) i + 1, stored[i].becomes);
	}
}

/* Put the rows of one subscription in order; returns its oid, or InvalidOid if there is none */
static Oid
reconcile(const StoredSubscription *stored)
{
	if (OidIsValid(stored->becomes))
		return stored->becomes;
	if (stored->name_now != NULL)
	{
		if (strcmp(stored->name, stored->name_now) != 0)
			rename_subscription(stored->oid, stored->name_now);
		return stored->oid;
	}
	/* Rules that came before their subscription wait for it. */
	if (stored->known)
		forget_subscription(stored->oid);
	return InvalidOid;
}

/* Put the rows of all subscriptions in order; returns the oids of those that are there */
static List *
reconcile_all(MemoryContext context)
{
	List *subscriptions = NIL;
	int count;
	StoredSubscription *stored = read_stored(&count);

	if (any_foreign(stored, count))
	{
		replsync_disown_foreign_rules();
		stored = read_stored(&count);
	}
	renumber_all(stored, count);
	for (int i = 0; i < count; i++)
	{
		Oid oid = reconcile(&stored[i]);

		if (OidIsValid(oid))
		{
			MemoryContext old = MemoryContextSwitchTo(context);

			subscriptions = lappend_oid(subscriptions, oid);
			MemoryContextSwitchTo(old);
		}
	}
	return subscriptions;
}

/* Serve CORE_SEQUENCE_SUBSCRIPTIONS */
void
replsync_sequence_subscriptions(StringInfo out)
{
	MemoryContext context = CurrentMemoryContext;
	List *subscriptions;
	ListCell *cell;
	int32 count = 0;

	wire_put_int32(out, 0);
	StartTransactionCommand();
	MemoryContextSwitchTo(context);
	if (replsync_sequence_has_tables())
	{
		replsync_spi_begin();
		subscriptions = reconcile_all(context);
		foreach (cell, subscriptions)
		{
			int len = out->len;

			replsync_put_subscription(out, lfirst_oid(cell));
			if (replsync_put_stored_rules(out, lfirst_oid(cell), get_subscription_name(lfirst_oid(cell), false)))
				count++;
			else
				out->len = len;
		}
		replsync_spi_end();
	}
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	memcpy(out->data, &count, sizeof(count));
}

/* What was found of a sequence */
typedef struct Record
{
	char *schema;
	char *name;
	Oid relid;
	SequencePosition publisher;
	bool known;
	char *problem;
	char *detail;
	char *hint;
} Record;

/* Take a record */
static void
get_record(WireReader *in, Record *record)
{
	record->schema = wire_get_text(in);
	record->name = wire_get_text(in);
	record->relid = (Oid) wire_get_int32(in);
	record->publisher.last_value = wire_get_int64(in);
	record->publisher.is_called = wire_get_bool(in);
	record->known = wire_get_bool(in);
	record->problem = wire_get_text(in);
	record->detail = wire_get_text(in);
	record->hint = wire_get_text(in);
}

/* Write the problem of a sequence to the table, or that there is none any more */
static void
write_problem(Oid subscription, const Record *record)
{
	static const Oid types[] = {OIDOID, NAMEOID, NAMEOID, TEXTOID, TEXTOID, TEXTOID};
	Datum values[] = {ObjectIdGetDatum(subscription),
					  DirectFunctionCall1(namein, CStringGetDatum(record->schema)),
					  DirectFunctionCall1(namein, CStringGetDatum(record->name)),
					  CStringGetTextDatum(record->problem),
					  CStringGetTextDatum(record->detail),
					  CStringGetTextDatum(record->hint)};

	if (record->problem[0] == '\0')
		(void) replsync_spi("DELETE FROM replsync.sequence_problem WHERE subscription = $1"
							" AND schema_name = $2 AND sequence_name = $3",
							3, types, values);
	else
		(void) replsync_spi("INSERT INTO replsync.sequence_problem AS p"
							" (subscription, schema_name, sequence_name, reason, detail, hint)"
							" SELECT $1, $2, $3, $4, $5, $6 WHERE EXISTS (SELECT FROM replsync.sequence_member"
							" WHERE subscription = $1 AND schema_name = $2 AND sequence_name = $3)"
							" ON CONFLICT (subscription, schema_name, sequence_name) DO UPDATE"
							" SET reason = excluded.reason, detail = excluded.detail, hint = excluded.hint,"
							" last_at = pg_catalog.now(), error_count = p.error_count + 1"
							" WHERE (p.reason, p.detail, p.hint) IS DISTINCT FROM"
							" (excluded.reason, excluded.detail, excluded.hint)",
							6, types, values);
}

/* Serve CORE_SEQUENCE_RECORD: subscription, records */
void
replsync_sequence_record(WireReader *in)
{
	MemoryContext context = CurrentMemoryContext;
	Oid subscription = (Oid) wire_get_int32(in);
	int count = wire_get_int32(in);
	bool writing = false;

	StartTransactionCommand();
	MemoryContextSwitchTo(context);
	for (int i = 0; i < count; i++)
	{
		Record record;

		get_record(in, &record);
		if (OidIsValid(record.relid))
			replsync_live_record(subscription, record.relid, record.known ? &record.publisher : NULL,
								 record.problem[0] != '\0');
		if (replsync_sequence_problem_changes(subscription, record.schema, record.name, record.problem,
											  record.detail, record.hint))
		{
			if (!writing)
				replsync_spi_begin();
			writing = true;
			write_problem(subscription, &record);
		}
		MemoryContextSwitchTo(context);
	}
	if (writing)
		replsync_spi_end();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

/* Serve CORE_SEQUENCE_FINISH: subscription, complete, generation, watermark, write */
void
replsync_sequence_finish(WireReader *in)
{
	static const Oid types[] = {OIDOID, INT8OID, LSNOID, INT8OID, INT4OID};
	MemoryContext context = CurrentMemoryContext;
	Oid subscription = (Oid) wire_get_int32(in);
	bool complete = wire_get_bool(in);
	int64 generation = wire_get_int64(in);
	uint64 lsn = (uint64) wire_get_int64(in);
	int64 system_identifier = wire_get_int64(in);
	int32 timeline = wire_get_int32(in);
	bool write = wire_get_bool(in);
	Datum values[] = {ObjectIdGetDatum(subscription), Int64GetDatum(complete ? generation : 0), LSNGetDatum(lsn),
					  Int64GetDatum(system_identifier), Int32GetDatum(timeline)};

	if (complete)
		replsync_live_watermark(subscription, lsn, (uint64) system_identifier, (uint32) timeline);
	if (!write)
		return;
	StartTransactionCommand();
	replsync_spi_begin();
	(void) replsync_spi("INSERT INTO replsync.sequence_watermark AS w"
						" (subscription, done_generation, publisher_lsn, system_identifier, timeline, written_at)"
						" SELECT $1, $2, $3, $4, $5, pg_catalog.clock_timestamp()"
						" WHERE EXISTS (SELECT FROM replsync.sequence_selection WHERE subscription = $1)"
						" ON CONFLICT (subscription) DO UPDATE"
						" SET done_generation = greatest(w.done_generation, excluded.done_generation),"
						" publisher_lsn = excluded.publisher_lsn, system_identifier = excluded.system_identifier,"
						" timeline = excluded.timeline, written_at = excluded.written_at",
						5, types, values);
	replsync_spi_end();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}
