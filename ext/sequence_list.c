/*
 * Serving the list of the sequences under care of a subscription in batches, with the position read anew from each
 * sequence's page.
 */
#include "replsync.h"

#include "access/xact.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/catcache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "sequence.h"
#include "sequence_list.h"

/* How long a batch waits for locks in all, in milliseconds. */
#define LOCK_BUDGET_MS 1000

/* Read where a sequence stands; returns why it cannot be told */
static const char *
read_position(ListedSequence *sequence, BufferAccessStrategy strategy, SequencePosition *position, int *budget_ms)
{
	Oid relid = sequence->oid;
	SequenceFile file;

	/* The lock keeps the file, and brings word of changes. */
	if (!replsync_lock_in_time(relid, AccessShareLock, budget_ms))
		return "locked";
	if (replsync_changes_have(relid))
		replsync_list_look_again(sequence);
	if (OidIsValid(sequence->oid))
	{
		replsync_sequence_file(&file, sequence->tablespace, sequence->filenode, sequence->persistence);
		*position = replsync_sequence_read(&file, strategy);
	}
	UnlockRelationOid(relid, AccessShareLock);
	return NULL;
}

/* The same, where an error is an answer too */
static const char *
read_position_carefully(ListedSequence *sequence, BufferAccessStrategy strategy, SequencePosition *position,
						int *budget_ms)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	const char *reason;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		reason = read_position(sequence, strategy, position, budget_ms);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		if (geterrcode() == ERRCODE_QUERY_CANCELED)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		EmitErrorReport();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		reason = "error";
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return reason;
}

/* Append a batch */
static void
append_batch(int first, int count, StringInfo out, bool carefully)
{
	BufferAccessStrategy strategy = GetAccessStrategy(BAS_BULKREAD);
	static const SequenceDefinition none;
	int budget_ms = LOCK_BUDGET_MS;

	wire_put_int32(out, count);
	for (int i = first; i < first + count; i++)
	{
		ListedSequence *sequence = &replsync_list.sequences[i];
		const SequenceDefinition *definition = &none;
		SequencePosition position = {0};
		const char *reason = "";
		const char *trouble = NULL;

		if (sequence->by_core)
			reason = "synchronized_by_core";
		else if (sequence->taken)
			reason = "not_a_sequence";
		if (OidIsValid(sequence->oid))
			trouble = (carefully ? read_position_carefully : read_position)(sequence, strategy, &position, &budget_ms);
		if (OidIsValid(sequence->oid))
			definition = sequence->definition;
		wire_put_text(out, sequence->schema);
		wire_put_text(out, sequence->name);
		wire_put_int32(out, (int32) sequence->oid);
		wire_put_text(out, trouble ? trouble : reason);
		wire_put_int32(out, (int32) definition->type);
		wire_put_int64(out, definition->start);
		wire_put_int64(out, definition->increment);
		wire_put_int64(out, definition->min);
		wire_put_int64(out, definition->max);
		wire_put_bool(out, definition->cycle);
		wire_put_int64(out, position.last_value);
		wire_put_bool(out, position.is_called);
		wire_put_text(out, sequence->problem ? sequence->problem : "");
	}
	FreeAccessStrategy(strategy);
}

/* Append the batch, one by one where one of them cannot be read */
static void
append_readable(int first, int count, StringInfo out)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool failed = false;

	PG_TRY();
	{
		append_batch(first, count, out, false);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		if (geterrcode() == ERRCODE_QUERY_CANCELED)
			PG_RE_THROW();
		FlushErrorState();
		AbortCurrentTransaction();
		failed = true;
	}
	PG_END_TRY();
	if (!failed)
		return;
	StartTransactionCommand();
	MemoryContextSwitchTo(context);
	resetStringInfo(out);
	append_batch(first, count, out, true);
}

/* Serve CORE_SEQUENCE_LIST: subscription, the name before the first, limit */
void
replsync_sequence_list(WireReader *in, StringInfo out)
{
	MemoryContext context = CurrentMemoryContext;
	Oid subscription = (Oid) wire_get_int32(in);
	char *schema;
	char *name;
	int limit;
	bool from_start;

	StartTransactionCommand();
	MemoryContextSwitchTo(context);
	schema = wire_get_text(in);
	name = wire_get_text(in);
	limit = wire_get_int32(in);
	from_start = schema[0] == '\0' && name[0] == '\0';
	if (from_start || replsync_list.subscription != subscription)
		replsync_list_begin(subscription);
	MemoryContextSwitchTo(context);
	if (from_start)
		replsync_list.next = 0;
	else if (replsync_list.next == 0 || replsync_list_compare(&replsync_list.sequences[replsync_list.next - 1], schema, name) != 0)
	{
		replsync_list.next = replsync_list_position(schema, name);
		if (replsync_list.next < replsync_list.count && replsync_list_compare(&replsync_list.sequences[replsync_list.next], schema, name) == 0)
			replsync_list.next++;
	}
	limit = Min(limit, replsync_list.count - replsync_list.next);
	append_readable(replsync_list.next, limit, out);
	replsync_list.next += limit;
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	/* Whatever had to be looked up again. */
	if (replsync_changes_are_many())
		ResetCatalogCaches();
}
