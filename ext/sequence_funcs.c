/*
 * The SQL functions that ask the worker of this database about the publisher's sequences.
 */
#include "replsync.h"

#include "catalog/namespace.h"
#include "catalog/pg_subscription.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
#include "utils/tuplestore.h"

#include "sequence.h"
#include "status.h"

PG_FUNCTION_INFO_V1(replsync_sync_sequences_sql);
PG_FUNCTION_INFO_V1(replsync_sequence_drift);
PG_FUNCTION_INFO_V1(replsync_check_publisher);

/* Take a row */
AnswerRow
replsync_answer_row(WireReader *in)
{
	AnswerRow row;

	row.named = true;
	row.schema = wire_get_name(in, &row.named);
	row.name = wire_get_name(in, &row.named);
	row.publisher_value = wire_get_int64(in);
	row.publisher_is_called = wire_get_bool(in);
	row.publisher_known = wire_get_bool(in);
	row.before = wire_get_int64(in);
	row.after = wire_get_int64(in);
	row.local_known = wire_get_bool(in);
	row.action = wire_get_text(in);
	row.reason = wire_get_text(in);
	row.check = wire_get_text(in);
	row.object = wire_get_text(in);
	row.ok = wire_get_int32(in);
	row.detail = wire_get_text(in);
	row.hint = wire_get_text(in);
	row.lsn = (XLogRecPtr) wire_get_int64(in);
	return row;
}

/* Find the subscription, and refuse what cannot be done here */
Oid
replsync_sequence_command(FunctionCallInfo fcinfo, const char *command, bool writes)
{
	replsync_require_preload();
	if (writes)
	{
		PreventCommandIfReadOnly(command);
		PreventCommandDuringRecovery(command);
	}
	else
		PreventCommandDuringRecovery(command);
	return replsync_own_subscription(NameStr(*PG_GETARG_NAME(0)));
}

/* Error out: no rules for this subscription */
void
replsync_no_rules(Oid subscription)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("subscription \"%s\" has no sequences under care", get_subscription_name(subscription, false)),
			 errhint("Call replsync.add_sequences() first.")));
}

/* Begin the text of a request; the rules follow */
void
replsync_begin_request(StringInfo text, CoreSequenceRequestKind kind, bool allow_backwards, Oid subscription)
{
	initStringInfo(text);
	wire_put_int32(text, kind);
	wire_put_bool(text, allow_backwards);
	replsync_put_subscription(text, subscription);
}

/* Complete the text of a request with the rules in the table; error out if there are none */
void
replsync_put_rules_of(StringInfo text, Oid subscription)
{
	bool found;

	replsync_spi_begin();
	found = replsync_put_stored_rules(text, subscription, get_subscription_name(subscription, false));
	replsync_spi_end();
	if (!found)
		replsync_no_rules(subscription);
}

/* Does this transaction hold a lock that keeps the worker from a sequence? */
static bool
holds_lock(Oid relid)
{
	static const LOCKMODE modes[] = {ShareLock, ShareRowExclusiveLock, ExclusiveLock, AccessExclusiveLock};
	LOCKTAG tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	for (size_t i = 0; i < lengthof(modes); i++)
	{
#if PG_VERSION_NUM >= 170000
		if (LockHeldByMe(&tag, modes[i], false))
#else
		if (LockHeldByMe(&tag, modes[i]))
#endif
			return true;
	}
	return false;
}

/* Error out: the worker cannot get at a sequence before this transaction ends */
static void
own_lock(const char *schema, const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			 errmsg("cannot synchronize sequence \"%s.%s\" because this transaction holds a lock on it",
					schema, name),
			 errhint("Commit first.")));
}

/*
 * Error out if this transaction holds a lock on one of the sequences: the worker would wait for it, and this
 * transaction for the worker. Whatever takes such a lock gives the transaction an id.
 */
static void
check_own_locks(Oid subscription)
{
	static const Oid types[] = {OIDOID};
	Datum values[] = {ObjectIdGetDatum(subscription)};
	uint64 rows;

	if (!TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return;
	replsync_spi_begin();
	rows = replsync_spi("SELECT c.oid, m.schema_name, m.sequence_name FROM replsync.sequence_member m"
						" JOIN pg_catalog.pg_namespace n ON n.nspname = m.schema_name"
						" JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = m.sequence_name"
						" WHERE m.subscription = $1",
						1, types, values);
	for (uint64 i = 0; i < rows; i++)
	{
		bool isnull;

		if (holds_lock(DatumGetObjectId(replsync_spi_value(i, 1, &isnull))))
			own_lock(NameStr(*DatumGetName(replsync_spi_value(i, 2, &isnull))),
					 NameStr(*DatumGetName(replsync_spi_value(i, 3, &isnull))));
	}
	replsync_spi_end();
}

/* Error out if the lock that the worker could not get is that of a DROP or a rename of this transaction */
static void
check_own_drop(const AnswerRow *row)
{
	Oid schema;

	if (!TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return;
	schema = get_namespace_oid(row->schema, true);
	if (!OidIsValid(schema) || !OidIsValid(get_relname_relid(row->name, schema)))
		own_lock(row->schema, row->name);
}

/* Store a row of sync_sequences() and sequence_drift() */
static void
read_sync_row(WireReader *in, void *arg)
{
	ReturnSetInfo *rsinfo = arg;
	AnswerRow row = replsync_answer_row(in);
	Datum values[8];
	bool nulls[8] = {0};

	if (strcmp(row.reason, "locked") == 0)
		check_own_drop(&row);
	values[0] = DirectFunctionCall1(namein, CStringGetDatum(row.schema));
	values[1] = DirectFunctionCall1(namein, CStringGetDatum(row.name));
	nulls[2] = nulls[3] = !row.publisher_known;
	values[2] = Int64GetDatum(row.publisher_value);
	values[3] = BoolGetDatum(row.publisher_is_called);
	nulls[4] = nulls[5] = !row.local_known;
	values[4] = Int64GetDatum(row.before);
	values[5] = Int64GetDatum(row.after);
	values[6] = CStringGetTextDatum(row.action);
	nulls[7] = row.reason[0] == '\0';
	values[7] = CStringGetTextDatum(row.reason);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* Store a row of check_publisher() */
static void
read_check_row(WireReader *in, void *arg)
{
	ReturnSetInfo *rsinfo = arg;
	AnswerRow row = replsync_answer_row(in);
	Datum values[6];
	bool nulls[6] = {0};

	values[0] = CStringGetTextDatum(row.check);
	nulls[1] = row.object[0] == '\0';
	values[1] = CStringGetTextDatum(row.object);
	nulls[2] = row.ok < 0;
	values[2] = BoolGetDatum(row.ok > 0);
	nulls[3] = row.detail[0] == '\0';
	values[3] = CStringGetTextDatum(row.detail);
	nulls[4] = row.hint[0] == '\0';
	values[4] = CStringGetTextDatum(row.hint);
	nulls[5] = row.lsn == InvalidXLogRecPtr;
	values[5] = LSNGetDatum(row.lsn);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* Run a request whose rows are the function's */
static void
run_request(FunctionCallInfo fcinfo, CoreSequenceRequestKind kind, Oid subscription, bool allow_backwards)
{
	StringInfoData text;

	replsync_require_committed_rules();
	check_own_locks(subscription);
	replsync_begin_request(&text, kind, allow_backwards, subscription);
	replsync_put_rules_of(&text, subscription);
	replsync_sequence_request(&text, read_sync_row, fcinfo->resultinfo);
}

/* sync_sequences(subscription, wait, allow_backwards) */
Datum
replsync_sync_sequences_sql(PG_FUNCTION_ARGS)
{
	Oid subscription = replsync_sequence_command(fcinfo, "replsync.sync_sequences()", true);

	InitMaterializedSRF(fcinfo, 0);
	if (PG_GETARG_BOOL(1))
		run_request(fcinfo, CORE_SYNC_SEQUENCES, subscription, PG_GETARG_BOOL(2));
	else if (PG_GETARG_BOOL(2))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("allow_backwards needs wait")));
	else
		replsync_request_sync(subscription);
	return (Datum) 0;
}

/* sequence_drift(subscription) */
Datum
replsync_sequence_drift(PG_FUNCTION_ARGS)
{
	Oid subscription = replsync_sequence_command(fcinfo, "replsync.sequence_drift()", false);

	InitMaterializedSRF(fcinfo, 0);
	run_request(fcinfo, CORE_SEQUENCE_DRIFT, subscription, false);
	return (Datum) 0;
}

/*
 * Store what the worker has learned from the publisher. Where there is no worker, what is known here
 * is still worth something.
 */
static void
ask_publisher(StringInfo text, ReturnSetInfo *rsinfo)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		replsync_sequence_request(text, read_check_row, rsinfo);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		Datum values[6] = {0};
		bool nulls[6] = {0};
		ErrorData *edata;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		if (edata->sqlerrcode != ERRCODE_CONFIGURATION_LIMIT_EXCEEDED &&
			edata->sqlerrcode != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
			PG_RE_THROW();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		values[0] = CStringGetTextDatum("publisher");
		values[3] = CStringGetTextDatum(psprintf("The publisher was not asked: %s.", edata->message));
		nulls[1] = nulls[2] = nulls[5] = true;
		nulls[4] = edata->hint == NULL;
		if (edata->hint)
			values[4] = CStringGetTextDatum(edata->hint);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
}

/* check_publisher(subscription): the rows of cutover_check() that only the publisher can tell */
Datum
replsync_check_publisher(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid subscription = get_subscription_oid(NameStr(*PG_GETARG_NAME(0)), false);
	StringInfoData text;
	bool found;

	replsync_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	if (RecoveryInProgress())
		return (Datum) 0;
	replsync_begin_request(&text, CORE_CHECK_PUBLISHER, false, subscription);
	replsync_spi_begin();
	found = replsync_put_stored_rules(&text, subscription, NameStr(*PG_GETARG_NAME(0)));
	replsync_spi_end();
	if (found)
		ask_publisher(&text, rsinfo);
	return (Datum) 0;
}
