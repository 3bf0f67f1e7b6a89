/*
 * Setting sequences, with the rights of their owners or of the subscription's. No code of a user runs on
 * the way, so nothing is executed as them: their rights are asked for instead.
 */
#include "replsync.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_sequence.h"
#include "catalog/pg_subscription.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "sequence.h"

/* How long a transaction waits for locks in all, in milliseconds. */
#define LOCK_BUDGET_MS 1000

/* What else lets a subscription's owner set the sequences of others. */
#if PG_VERSION_NUM >= 160000
#define OR_RUN_AS_OWNER " or let the subscription run_as_owner."
#else
#define OR_RUN_AS_OWNER ""
#endif

/* After so many sequences the catalog caches are emptied: each leaves some 600 bytes there. */
#define CACHE_RESET 2000

typedef struct SetOne
{
	Oid relid;
	SequencePosition to;
	bool backwards;
} SetOne;

typedef struct SetContext
{
	Oid owner; /* of the subscription */
	bool run_as_owner;
	Oid last_owner; /* of a sequence: as whom it is set is known */
	bool last_allowed;
	int budget_ms;
	BufferAccessStrategy strategy;
	StringInfo out;
} SetContext;

/* Append a result */
static void
append_result(StringInfo out, SequencePosition before, SequencePosition after, const char *sqlstate,
			  const char *message, const char *detail, const char *hint)
{
	wire_put_int64(out, before.last_value);
	wire_put_bool(out, before.is_called);
	wire_put_int64(out, after.last_value);
	wire_put_bool(out, after.is_called);
	wire_put_text(out, sqlstate);
	wire_put_text(out, message);
	wire_put_text(out, detail);
	wire_put_text(out, hint);
}

/* Append an error */
static void
append_error(StringInfo out, int sqlerrcode, const char *message, const char *hint)
{
	SequencePosition none = {0};

	append_result(out, none, none, unpack_sql_state(sqlerrcode), message, "", hint ? hint : "");
}

/* May the subscription's owner become the owner of sequences? */
static bool
may_become(SetContext *context, Oid owner)
{
	if (owner != context->last_owner)
	{
#if PG_VERSION_NUM >= 160000
		context->last_allowed = member_can_set_role(context->owner, owner);
#else
		context->last_allowed = is_member_of_role(context->owner, owner);
#endif
		context->last_owner = owner;
	}
	return context->last_allowed;
}

/* May this sequence be set? Otherwise the reason is appended */
static bool
is_allowed(SetContext *context, Oid relid, Form_pg_class class)
{
	Oid as = context->run_as_owner ? context->owner : class->relowner;

	if (!context->run_as_owner && !may_become(context, class->relowner))
	{
		const char *owner = GetUserNameFromId(class->relowner, true);
		const char *member = GetUserNameFromId(context->owner, true);

		append_error(context->out, ERRCODE_INSUFFICIENT_PRIVILEGE,
					 psprintf("role \"%s\" cannot SET ROLE to \"%s\"", member ? member : "", owner ? owner : ""),
					 psprintf("Run GRANT %s TO %s;" OR_RUN_AS_OWNER,
							  quote_identifier(owner ? owner : ""), quote_identifier(member ? member : "")));
		return false;
	}
	if (pg_class_aclcheck(relid, as, ACL_UPDATE) != ACLCHECK_OK)
	{
		const char *role = GetUserNameFromId(as, true);

		append_error(context->out, ERRCODE_INSUFFICIENT_PRIVILEGE,
					 psprintf("permission denied for sequence %s", NameStr(class->relname)),
					 psprintf("Run GRANT UPDATE ON SEQUENCE %s TO %s;",
							  quote_qualified_identifier(get_namespace_name(class->relnamespace), NameStr(class->relname)),
							  quote_identifier(role ? role : "")));
		return false;
	}
	return true;
}

/* Set a sequence that is locked; the result is appended */
static void
set_locked(SetContext *context, const SetOne *set, Form_pg_class class, Form_pg_sequence form)
{
	SequencePosition before;
	SequencePosition after;
	SequenceFile file;

	if (!is_allowed(context, set->relid, class))
		return;
	if (set->to.last_value < form->seqmin || set->to.last_value > form->seqmax)
	{
		append_error(context->out, ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
					 psprintf("value %lld is out of bounds for sequence \"%s\" (%lld..%lld)",
							  (long long) set->to.last_value, NameStr(class->relname),
							  (long long) form->seqmin, (long long) form->seqmax),
					 NULL);
		return;
	}
	replsync_sequence_file(&file, class->reltablespace, class->relfilenode, class->relpersistence);
	after = replsync_sequence_raise(&file, context->strategy, set->to, form->seqincrement, set->backwards, &before);
	append_result(context->out, before, after, "", "", "", "");
}

/* Set one sequence; the result is appended */
static void
set_one(SetContext *context, const SetOne *set)
{
	HeapTuple relation;
	HeapTuple definition;

	/* As nextval() and setval() do: it keeps ALTER, DROP and TRUNCATE away. */
	if (!replsync_lock_in_time(set->relid, RowExclusiveLock, &context->budget_ms))
	{
		append_error(context->out, ERRCODE_LOCK_NOT_AVAILABLE,
					 psprintf("could not obtain lock on sequence %u", set->relid), NULL);
		return;
	}
	relation = SearchSysCache1(RELOID, ObjectIdGetDatum(set->relid));
	definition = SearchSysCache1(SEQRELID, ObjectIdGetDatum(set->relid));
	if (HeapTupleIsValid(relation) && HeapTupleIsValid(definition))
		set_locked(context, set, (Form_pg_class) GETSTRUCT(relation), (Form_pg_sequence) GETSTRUCT(definition));
	else
		append_error(context->out, ERRCODE_UNDEFINED_TABLE,
					 psprintf("sequence with OID %u does not exist", set->relid), NULL);
	if (HeapTupleIsValid(relation))
		ReleaseSysCache(relation);
	if (HeapTupleIsValid(definition))
		ReleaseSysCache(definition);
	/* The position is no transaction's. Locks that go at once need no room in the lock table. */
	UnlockRelationOid(set->relid, RowExclusiveLock);
}

/* The same, where an error is a result too */
static void
set_one_carefully(SetContext *context, const SetOne *set)
{
	MemoryContext memory = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	int len = context->out->len;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(memory);
	PG_TRY();
	{
		set_one(context, set);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData *edata;
		SequencePosition none = {0};

		if (geterrcode() == ERRCODE_QUERY_CANCELED)
			PG_RE_THROW();
		MemoryContextSwitchTo(memory);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(memory);
		context->out->len = len;
		append_result(context->out, none, none, unpack_sql_state(edata->sqlerrcode), edata->message,
					  edata->detail ? edata->detail : "", edata->hint ? edata->hint : "");
		FreeErrorData(edata);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(memory);
	CurrentResourceOwner = owner;
}

/* With whose rights are sequences set? */
static void
read_subscription(Oid subscription, SetContext *context)
{
	HeapTuple tuple = SearchSysCache1(SUBSCRIPTIONOID, ObjectIdGetDatum(subscription));

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("subscription %u does not exist", subscription)));
	context->owner = ((Form_pg_subscription) GETSTRUCT(tuple))->subowner;
#if PG_VERSION_NUM >= 160000
	context->run_as_owner = ((Form_pg_subscription) GETSTRUCT(tuple))->subrunasowner;
#else
	context->run_as_owner = false;
#endif
	ReleaseSysCache(tuple);
}

/* How far it has come: results that are there stay, as what they tell is no transaction's */
typedef struct SetProgress
{
	int done;
	int len; /* of their results */
} SetProgress;

/* Set all that are left in one transaction */
static void
set_all(Oid subscription, const SetOne *sets, int count, StringInfo out, volatile SetProgress *progress, bool carefully)
{
	SetContext context = {.budget_ms = LOCK_BUDGET_MS, .out = out};
	MemoryContext memory = CurrentMemoryContext;

	StartTransactionCommand();
	MemoryContextSwitchTo(memory);
	read_subscription(subscription, &context);
	context.strategy = GetAccessStrategy(BAS_BULKWRITE);
	/*
	 * A cycle that has set something ends with a commit that waits for the disk, and nothing claims that it was set before
	 * (replsync_sequence_finish()): one wait is enough for all.
	 */
	(void) set_config_option("synchronous_commit", "off", PGC_SUSET, PGC_S_OVERRIDE, GUC_ACTION_LOCAL, true, 0, false);
	for (int i = progress->done; i < count; i++)
	{
		static int since_reset = 0;

		(carefully ? set_one_carefully : set_one)(&context, &sets[i]);
		progress->done = i + 1;
		progress->len = out->len;
		if (++since_reset >= CACHE_RESET)
		{
			since_reset = 0;
			ResetCatalogCaches();
		}
	}
	FreeAccessStrategy(context.strategy);
	CommitTransactionCommand();
	MemoryContextSwitchTo(memory);
}

/* Serve CORE_SEQUENCE_SET: subscription, sets */
void
replsync_sequence_set(WireReader *in, StringInfo out)
{
	MemoryContext memory = CurrentMemoryContext;
	Oid subscription = (Oid) wire_get_int32(in);
	int count = wire_get_int32(in);
	SetOne *sets = palloc_extended(sizeof(SetOne) * count, MCXT_ALLOC_HUGE);
	volatile bool failed = false;
	volatile SetProgress progress;

	wire_put_int32(out, count);
	progress.done = 0;
	progress.len = out->len;
	for (int i = 0; i < count; i++)
	{
		sets[i].relid = (Oid) wire_get_int32(in);
		sets[i].to.last_value = wire_get_int64(in);
		sets[i].to.is_called = wire_get_bool(in);
		sets[i].backwards = wire_get_bool(in);
	}
	PG_TRY();
	{
		set_all(subscription, sets, count, out, &progress, false);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(memory);
		if (geterrcode() == ERRCODE_QUERY_CANCELED || geterrcode() == ERRCODE_UNDEFINED_OBJECT)
			PG_RE_THROW();
		FlushErrorState();
		AbortCurrentTransaction();
		failed = true;
	}
	PG_END_TRY();
	if (!failed)
		return;
	MemoryContextSwitchTo(memory);
	out->len = progress.len;
	set_all(subscription, sets, count, out, &progress, true);
}
