/*
 * The SQL functions about which sequences belong to a subscription. The publisher is asked by the worker; the rules
 * and the members are written here, in the caller's transaction, so that it may be rolled back.
 */
#include "replsync.h"

#include "access/xlog.h"
#include "catalog/pg_subscription.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "sequence.h"
#include "status.h"

PG_FUNCTION_INFO_V1(replsync_add_sequences);
PG_FUNCTION_INFO_V1(replsync_remove_sequences);
PG_FUNCTION_INFO_V1(replsync_refresh_selection);

#if PG_VERSION_NUM >= 170000
#define MY_LXID (MyProc->vxid.lxid)
#else
#define MY_LXID (MyProc->lxid)
#endif

/* Rules without a subscription have oids from here on; no object that is made has one below 16384. */
#define FIRST_PLACEHOLDER "8192"

/* The transaction of this backend that has changed rules last. */
static LocalTransactionId changed_in = InvalidLocalTransactionId;

/* Error out: the worker would not see what this transaction has changed */
void
replsync_require_committed_rules(void)
{
	if (changed_in != MY_LXID)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			 errmsg("sequences cannot be synchronized in the transaction that has changed their selection"),
			 errhint("Commit first.")));
}

/* Keep a name; none of this database can be one that its encoding does not have */
static void
read_name(WireReader *in, void *arg)
{
	SequenceNames *list = arg;
	AnswerRow row = replsync_answer_row(in);

	if (row.named)
		replsync_add_name(list, row.schema, row.name);
	else
		list->left_out++;
}

/* Ask the publisher which sequences belong */
static void
select_names(StringInfo text, Datum *schemas, Datum *names)
{
	SequenceNames list = {.context = CurrentMemoryContext};

	replsync_sequence_request(text, read_name, &list);
	if (list.left_out > 0)
		ereport(WARNING,
				(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
				 errmsg("some sequences are left out because of their names"),
				 errdetail("The names of %d of the publisher's sequences cannot be written in this database's encoding, \"%s\".",
						   list.left_out, GetDatabaseEncodingName())));
	*schemas = replsync_finish_names(&list, list.schemas);
	*names = replsync_finish_names(&list, list.names);
}

/* Keep the subscription from being dropped until the end of this transaction; nobody waits for the publisher with it */
static void
lock_subscription(Oid subscription)
{
	LockSharedObject(SubscriptionRelationId, subscription, 0, AccessShareLock);
	if (get_subscription_name(subscription, true) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("subscription was dropped concurrently")));
}

/*
 * Does the oid in the rules r mean nothing here? They were restored, or their subscription was dropped. The name of
 * others is outdated where it is another subscription's.
 */
#define RULES_ARE_UNKNOWN                                                                              \
	"(NOT EXISTS (SELECT FROM pg_catalog.pg_subscription s WHERE s.oid = r.subscription)"              \
	" OR NOT EXISTS (SELECT FROM replsync.sequence_watermark w WHERE w.subscription = r.subscription)" \
	" AND NOT EXISTS (SELECT FROM replsync.sequence_member m WHERE m.subscription = r.subscription))"

/* What is kept of the sequences of a subscription whose rules are gone, or have another oid now */
static void
forget_state_without_rules(void)
{
	static const char *const tables[] = {"member", "problem", "watermark"};

	for (size_t i = 0; i < lengthof(tables); i++)
		(void) replsync_spi(psprintf("DELETE FROM replsync.sequence_%s t WHERE NOT EXISTS"
									 " (SELECT FROM replsync.sequence_selection r WHERE r.subscription = t.subscription)",
									 tables[i]),
							0, NULL, NULL);
}

/*
 * The rules that another server has written get an oid that no subscription can have, so that they go by the name, as those
 * that were restored from a dump. What that server knew of the sequences is dropped: it may be that of another subscription
 * now, and would prove what nobody has looked at here. Between replsync_spi_begin() and replsync_spi_end().
 */
void
replsync_disown_foreign_rules(void)
{
	static const Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum((int64) GetSystemIdentifier())};

	if (replsync_spi("UPDATE replsync.sequence_selection r SET subscription = f.placeholder::oid, written_by = $1"
					 " FROM (SELECT o.subscription, coalesce((SELECT max(p.subscription::bigint)"
					 " FROM replsync.sequence_selection p WHERE p.subscription BETWEEN " FIRST_PLACEHOLDER
					 " AND 16383), " FIRST_PLACEHOLDER ") + row_number() OVER () AS placeholder"
					 " FROM replsync.sequence_selection o WHERE o.written_by <> $1) f"
					 " WHERE r.subscription = f.subscription AND r.written_by <> $1",
					 1, types, values) > 0)
		forget_state_without_rules();
}

/* The rules of a subscription are given, or taken away: those that were restored for it are not asked for any more */
static void
forget_restored(Oid subscription)
{
	static const Oid types[] = {OIDOID, NAMEOID};
	Datum values[] = {ObjectIdGetDatum(subscription),
					  DirectFunctionCall1(namein, CStringGetDatum(get_subscription_name(subscription, false)))};

	if (replsync_spi("DELETE FROM replsync.sequence_selection r"
					 " WHERE r.subscription_name = $2 AND r.subscription <> $1 AND " RULES_ARE_UNKNOWN,
					 2, types, values) > 0)
		forget_state_without_rules();
}

/* Rules that were restored from a dump go by the name of the subscription until a worker has seen them */
static void
adopt_rules(Oid subscription)
{
	static const Oid types[] = {OIDOID, NAMEOID};
	Datum values[] = {ObjectIdGetDatum(subscription),
					  DirectFunctionCall1(namein, CStringGetDatum(get_subscription_name(subscription, false)))};

	if (replsync_spi("UPDATE replsync.sequence_selection SET subscription = $1 WHERE subscription ="
					 " (SELECT min(r.subscription) FROM replsync.sequence_selection r"
					 " WHERE r.subscription_name = $2 AND r.subscription <> $1 AND " RULES_ARE_UNKNOWN ")"
					 " AND NOT EXISTS (SELECT FROM replsync.sequence_selection o WHERE o.subscription = $1)",
					 2, types, values) > 0)
		forget_state_without_rules();
}

/* The rules of this transaction's functions have changed */
static void
rules_changed(void)
{
	changed_in = MY_LXID;
	replsync_sequence_notify_at_commit();
}

/* Check the arguments of add_sequences(); returns whether all sequences are meant */
static bool
check_rules(const char *selection, int64 margin)
{
	if (strcmp(selection, "tables") != 0 && strcmp(selection, "all") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized selection \"%s\"", selection),
				 errhint("Valid selections are \"tables\" and \"all\".")));
	if (margin < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("margin must not be negative")));
	return strcmp(selection, "all") == 0;
}

/* Error out if an array has a NULL in it or more than one dimension */
static void
check_patterns(ArrayType *patterns, const char *name)
{
	if (ARR_NDIM(patterns) > 1 || array_contains_nulls(patterns))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a one-dimensional array without nulls", name)));
}

/* add_sequences(subscription, selection, include, exclude, margin) returns integer */
Datum
replsync_add_sequences(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {OIDOID, NAMEOID, TEXTOID, TEXTARRAYOID, TEXTARRAYOID, INT8OID, INT8OID};
	char *selection = text_to_cstring(PG_GETARG_TEXT_PP(1));
	ArrayType *include = PG_GETARG_ARRAYTYPE_P(2);
	ArrayType *exclude = PG_GETARG_ARRAYTYPE_P(3);
	int64 margin = PG_GETARG_INT64(4);
	bool all = check_rules(selection, margin);
	Oid subscription = replsync_sequence_command(fcinfo, "replsync.add_sequences()", true);
	Datum values[7];
	Datum schemas;
	Datum names;
	StringInfoData text;
	int64 count;

	check_patterns(include, "include");
	check_patterns(exclude, "exclude");
	replsync_begin_request(&text, CORE_SELECT_SEQUENCES, false, subscription);
	replsync_put_rules(&text, all, include, exclude, margin);
	replsync_put_no_state(&text);
	select_names(&text, &schemas, &names);

	lock_subscription(subscription);
	values[0] = ObjectIdGetDatum(subscription);
	values[1] = PG_GETARG_DATUM(0);
	values[2] = PG_GETARG_DATUM(1);
	values[3] = PointerGetDatum(include);
	values[4] = PointerGetDatum(exclude);
	values[5] = Int64GetDatum(margin);
	values[6] = Int64GetDatum((int64) GetSystemIdentifier());
	replsync_spi_begin();
	replsync_disown_foreign_rules();
	forget_restored(subscription);
	(void) replsync_spi("INSERT INTO replsync.sequence_selection AS r"
						" (subscription, subscription_name, selection, include, exclude, margin, written_by)"
						" VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (subscription) DO UPDATE"
						" SET subscription_name = excluded.subscription_name, selection = excluded.selection,"
						" include = excluded.include, exclude = excluded.exclude, margin = excluded.margin,"
						" requested_generation = r.requested_generation + 1",
						7, types, values);
	count = replsync_replace_members(subscription, schemas, names);
	replsync_spi_end();
	rules_changed();
	PG_RETURN_INT32((int32) count);
}

/* remove_sequences(subscription) returns integer */
Datum
replsync_remove_sequences(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {OIDOID};
	Oid subscription = replsync_sequence_command(fcinfo, "replsync.remove_sequences()", true);
	Datum values[] = {ObjectIdGetDatum(subscription)};
	uint64 count;

	replsync_spi_begin();
	replsync_disown_foreign_rules();
	adopt_rules(subscription);
	forget_restored(subscription);
	(void) replsync_spi("DELETE FROM replsync.sequence_selection WHERE subscription = $1", 1, types, values);
	count = replsync_spi("DELETE FROM replsync.sequence_member WHERE subscription = $1", 1, types, values);
	(void) replsync_spi("DELETE FROM replsync.sequence_problem WHERE subscription = $1", 1, types, values);
	(void) replsync_spi("DELETE FROM replsync.sequence_watermark WHERE subscription = $1", 1, types, values);
	replsync_spi_end();
	rules_changed();
	PG_RETURN_INT32((int32) count);
}

/* refresh_selection(subscription) returns integer */
Datum
replsync_refresh_selection(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {OIDOID};
	Oid subscription = replsync_sequence_command(fcinfo, "replsync.refresh_selection()", true);
	Datum values[] = {ObjectIdGetDatum(subscription)};
	Datum schemas;
	Datum names;
	StringInfoData text;
	int64 count;

	replsync_begin_request(&text, CORE_SELECT_SEQUENCES, false, subscription);
	replsync_put_rules_of(&text, subscription);
	select_names(&text, &schemas, &names);

	lock_subscription(subscription);
	replsync_spi_begin();
	replsync_disown_foreign_rules();
	adopt_rules(subscription);
	if (replsync_spi("UPDATE replsync.sequence_selection SET requested_generation = requested_generation + 1"
					 " WHERE subscription = $1",
					 1, types, values) == 0)
		replsync_no_rules(subscription);
	count = replsync_replace_members(subscription, schemas, names);
	replsync_spi_end();
	rules_changed();
	PG_RETURN_INT32((int32) count);
}

/* Mark all sequences for a new sync */
void
replsync_request_sync(Oid subscription)
{
	static const Oid types[] = {OIDOID};
	Datum values[] = {ObjectIdGetDatum(subscription)};
	uint64 rows;

	replsync_spi_begin();
	replsync_disown_foreign_rules();
	adopt_rules(subscription);
	rows = replsync_spi("UPDATE replsync.sequence_selection SET requested_generation = requested_generation + 1,"
						" resync_generation = requested_generation + 1 WHERE subscription = $1",
						1, types, values);
	replsync_spi_end();
	if (rows == 0)
		replsync_no_rules(subscription);
	replsync_sequence_notify_at_commit();
}
