/*
 * Listing the sequences under care of a subscription. The catalogs are read when they have changed and kept in a
 * compact form; batches are served from it, with the position read anew from each sequence's page.
 */
#include "replsync.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_sequence.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "sequence.h"

/* How many rows are fetched at a time. */
#define FETCH_ROWS 2000

/* How long a batch waits for locks in all, in milliseconds. */
#define LOCK_BUDGET_MS 1000

/* Relations that have changed since the catalogs were read; with more of them, all count as changed. */
#define MAX_CHANGED 256

/* How much news of problems the list takes in before it is made anew. */
#define MAX_NEWS 10000

/* Shared by neighbours: nearly all sequences have the same. */
typedef struct SequenceDefinition
{
	Oid type;
	bool cycle;
	int64 start;
	int64 increment;
	int64 min;
	int64 max;
} SequenceDefinition;

typedef struct ListedSequence
{
	const char *schema;
	const char *name;
	const char *problem; /* its reason; NULL: none */
	uint32 problem_hash; /* of detail and hint */
	Oid oid;			 /* InvalidOid: there is none of that name */
	Oid filenode;
	Oid tablespace;
	char persistence;
	bool by_core;
	const SequenceDefinition *definition;
} ListedSequence;

static struct
{
	MemoryContext context;
	Oid subscription;
	ListedSequence *sequences;
	int count;
	int capacity;
	int next; /* where the last batch ended */
	int news; /* problems that came or went: each leaves its text in the pool */
	char *pool;
	Size pool_left;
} list;

static Oid changed[MAX_CHANGED];
static int nchanged = 0;
static bool catalogs_changed = false; /* in another way */

/* The selection of which the list has the members; whatever changes those writes a new version of its row. */
static TransactionId list_version;

/* One for each name, matched to what the catalogs have. */
static const char list_query[] =
	"SELECT m.schema_name, m.sequence_name, c.oid, c.relfilenode, c.reltablespace, c.relpersistence,"
	" s.seqtypid, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcycle, p.reason, p.detail, p.hint,"
#if PG_VERSION_NUM >= 190000
	" EXISTS (SELECT FROM pg_catalog.pg_subscription_rel r WHERE r.srrelid = c.oid)"
#else
	" false"
#endif
	" FROM replsync.sequence_member m"
	" LEFT JOIN (pg_catalog.pg_namespace n JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relkind = 'S'"
	" JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid)"
	" ON n.nspname = m.schema_name AND c.relname = m.sequence_name"
	" LEFT JOIN replsync.sequence_problem p ON p.subscription = m.subscription"
	" AND p.schema_name = m.schema_name AND p.sequence_name = m.sequence_name"
	" WHERE m.subscription = $1 ORDER BY m.schema_name, m.sequence_name";

/* Remember that a relation has changed */
static void
note_change(Datum arg, Oid relid)
{
	if (list.context == NULL)
		return;
	if (!OidIsValid(relid) || nchanged >= MAX_CHANGED)
		nchanged = MAX_CHANGED + 1;
	else
		changed[nchanged++] = relid;
}

/* Remember that a schema, a definition or what core synchronizes has changed */
static void
note_catalog_change(Datum arg, int cacheid, uint32 hashvalue)
{
	catalogs_changed = true;
}

/* Hear of changes from now on */
static void
watch_catalogs(void)
{
	static bool registered = false;

	if (registered)
		return;
	registered = true;
	CacheRegisterRelcacheCallback(note_change, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, note_catalog_change, (Datum) 0);
	CacheRegisterSyscacheCallback(SEQRELID, note_catalog_change, (Datum) 0);
	CacheRegisterSyscacheCallback(SUBSCRIPTIONRELMAP, note_catalog_change, (Datum) 0);
}

/* Has a relation changed since the catalogs were read? */
static bool
has_changed(Oid relid)
{
	if (nchanged > MAX_CHANGED)
		return true;
	for (int i = 0; i < nchanged; i++)
	{
		if (changed[i] == relid)
			return true;
	}
	return false;
}

/* Forget the list */
void
replsync_sequence_list_end(void)
{
	if (list.context != NULL)
		MemoryContextDelete(list.context);
	memset(&list, 0, sizeof(list));
}

/* Keep a text as long as the list, without an allocation for each */
static const char *
keep(const char *text)
{
	Size size = strlen(text) + 1;
	char *copy;

	if (size > list.pool_left)
	{
		list.pool_left = Max(size, 65536);
		list.pool = MemoryContextAlloc(list.context, list.pool_left);
	}
	copy = memcpy(list.pool, text, size);
	list.pool += size;
	list.pool_left -= size;
	return copy;
}

/* Keep a definition, or find it: it is often that of the sequence before */
static const SequenceDefinition *
keep_definition(const SequenceDefinition *definition, const SequenceDefinition *before)
{
	SequenceDefinition *copy;

	if (before != NULL && memcmp(before, definition, sizeof(*definition)) == 0)
		return before;
	copy = MemoryContextAlloc(list.context, sizeof(*copy));
	memcpy(copy, definition, sizeof(*copy));
	return copy;
}

/* The hash by which a detail and a hint are compared */
static uint32
hash_texts(const char *detail, const char *hint)
{
	return hash_combine(hash_bytes((const unsigned char *) detail, strlen(detail)),
						hash_bytes((const unsigned char *) hint, strlen(hint)));
}

/* A value of the current row */
static Datum
value_of(HeapTuple row, int column, bool *isnull)
{
	return SPI_getbinval(row, SPI_tuptable->tupdesc, column, isnull);
}

/* Keep one row of the query */
static void
keep_row(HeapTuple row)
{
	ListedSequence *sequence = &list.sequences[list.count];
	SequenceDefinition definition;
	const char *schema;
	bool isnull;

	memset(sequence, 0, sizeof(*sequence));
	schema = NameStr(*DatumGetName(value_of(row, 1, &isnull)));
	if (list.count > 0 && strcmp(sequence[-1].schema, schema) == 0)
		sequence->schema = sequence[-1].schema;
	else
		sequence->schema = keep(schema);
	sequence->name = keep(NameStr(*DatumGetName(value_of(row, 2, &isnull))));
	sequence->oid = DatumGetObjectId(value_of(row, 3, &isnull));
	if (isnull)
		sequence->oid = InvalidOid;
	else
	{
		sequence->filenode = DatumGetObjectId(value_of(row, 4, &isnull));
		sequence->tablespace = DatumGetObjectId(value_of(row, 5, &isnull));
		sequence->persistence = DatumGetChar(value_of(row, 6, &isnull));
		memset(&definition, 0, sizeof(definition));
		definition.type = DatumGetObjectId(value_of(row, 7, &isnull));
		definition.start = DatumGetInt64(value_of(row, 8, &isnull));
		definition.increment = DatumGetInt64(value_of(row, 9, &isnull));
		definition.min = DatumGetInt64(value_of(row, 10, &isnull));
		definition.max = DatumGetInt64(value_of(row, 11, &isnull));
		definition.cycle = DatumGetBool(value_of(row, 12, &isnull));
		sequence->definition = keep_definition(&definition, list.count > 0 ? sequence[-1].definition : NULL);
		sequence->by_core = DatumGetBool(value_of(row, 16, &isnull));
	}
	(void) value_of(row, 13, &isnull);
	if (!isnull)
	{
		sequence->problem = keep(SPI_getvalue(row, SPI_tuptable->tupdesc, 13));
		sequence->problem_hash = hash_texts(SPI_getvalue(row, SPI_tuptable->tupdesc, 14),
											SPI_getvalue(row, SPI_tuptable->tupdesc, 15));
	}
	list.count++;
}

/* Read the catalogs */
static void
read_list(Oid subscription)
{
	Oid types[] = {OIDOID};
	Datum values[] = {ObjectIdGetDatum(subscription)};
	Portal portal;
	int nest_level;

	watch_catalogs();
	replsync_sequence_list_end();
	list.context = AllocSetContextCreate(TopMemoryContext, "replsync sequences", ALLOCSET_DEFAULT_SIZES);
	nchanged = 0;
	catalogs_changed = false;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	/* Without statistics, as after add_sequences(), the planner joins all with all: 100 000 take hours. */
	nest_level = NewGUCNestLevel();
	(void) set_config_option("enable_nestloop", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	portal = SPI_cursor_open_with_args(NULL, list_query, 1, types, values, NULL, true, 0);
	AtEOXact_GUC(true, nest_level);
	for (;;)
	{
		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		if (SPI_processed == 0)
			break;
		if (list.count + (int) SPI_processed > list.capacity)
		{
			list.capacity += Max(list.capacity / 4, FETCH_ROWS);
			if (list.sequences == NULL)
				list.sequences = MemoryContextAllocHuge(list.context, sizeof(ListedSequence) * list.capacity);
			else
				list.sequences = repalloc_huge(list.sequences, sizeof(ListedSequence) * list.capacity);
		}
		for (uint64 i = 0; i < SPI_processed; i++)
			keep_row(SPI_tuptable->vals[i]);
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	SPI_finish();
	PopActiveSnapshot();
	list.subscription = subscription;
}

/* The version of the row with the rules of a subscription; InvalidTransactionId if there is none */
static TransactionId
selection_version(Oid subscription)
{
	static const Oid types[] = {OIDOID};
	Datum values[] = {ObjectIdGetDatum(subscription)};
	TransactionId version = InvalidTransactionId;
	bool isnull;

	replsync_spi_begin();
	if (replsync_spi("SELECT xmin FROM replsync.sequence_selection WHERE subscription = $1", 1, types, values) > 0)
		version = DatumGetTransactionId(replsync_spi_value(0, 1, &isnull));
	replsync_spi_end();
	return version;
}

/*
 * Have the changes since the catalogs were read nothing to do with the list? A sequence that is renamed, moved or rewritten is a
 * relation that has changed; one that is made, dropped or altered shows in the catalog of definitions too.
 */
static bool
changes_are_of_others(void)
{
	if (catalogs_changed || nchanged > MAX_CHANGED)
		return false;
	for (int i = 0; i < nchanged; i++)
	{
		if (get_rel_relkind(changed[i]) == RELKIND_SEQUENCE)
			return false;
	}
	/* Looking them up may have brought word of more. */
	return !catalogs_changed && nchanged <= MAX_CHANGED;
}

/* Begin with the first sequence of a subscription; the catalogs are read again where the list may be outdated */
static void
begin_list(Oid subscription)
{
	/* First, so that the members are not older. */
	TransactionId version = selection_version(subscription);

	if (list.context != NULL && list.subscription == subscription && TransactionIdIsValid(version) &&
		version == list_version && list.news <= MAX_NEWS && changes_are_of_others())
	{
		nchanged = 0;
		return;
	}
	read_list(subscription);
	list_version = version;
}

/* Compare a listed name with another one */
static int
compare(const ListedSequence *sequence, const char *schema, const char *name)
{
	int order = strcmp(sequence->schema, schema);

	return order != 0 ? order : strcmp(sequence->name, name);
}

/* The first sequence that is not before a name */
static int
position_of(const char *schema, const char *name)
{
	int low = 0;
	int high = list.count;

	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (compare(&list.sequences[middle], schema, name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Look again at a sequence that may have changed; the caller has a lock on it */
static void
look_again(ListedSequence *sequence)
{
	HeapTuple relation = SearchSysCache1(RELOID, ObjectIdGetDatum(sequence->oid));
	HeapTuple definition = SearchSysCache1(SEQRELID, ObjectIdGetDatum(sequence->oid));

	if (HeapTupleIsValid(relation) && HeapTupleIsValid(definition))
	{
		Form_pg_class class = (Form_pg_class) GETSTRUCT(relation);
		Form_pg_sequence form = (Form_pg_sequence) GETSTRUCT(definition);
		SequenceDefinition now;

		sequence->filenode = class->relfilenode;
		sequence->tablespace = class->reltablespace;
		sequence->persistence = class->relpersistence;
		memset(&now, 0, sizeof(now));
		now.type = form->seqtypid;
		now.start = form->seqstart;
		now.increment = form->seqincrement;
		now.min = form->seqmin;
		now.max = form->seqmax;
		now.cycle = form->seqcycle;
		sequence->definition = keep_definition(&now, sequence->definition);
	}
	else
		sequence->oid = InvalidOid;
	if (HeapTupleIsValid(relation))
		ReleaseSysCache(relation);
	if (HeapTupleIsValid(definition))
		ReleaseSysCache(definition);
}

/* Read where a sequence stands; returns why it cannot be told */
static const char *
read_position(ListedSequence *sequence, BufferAccessStrategy strategy, SequencePosition *position, int *budget_ms)
{
	Oid relid = sequence->oid;
	SequenceFile file;

	/* The lock keeps the file, and brings word of changes. */
	if (!replsync_lock_in_time(relid, AccessShareLock, budget_ms))
		return "locked";
	if (has_changed(relid))
		look_again(sequence);
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
		ListedSequence *sequence = &list.sequences[i];
		const SequenceDefinition *definition = &none;
		SequencePosition position = {0};
		const char *reason = sequence->by_core ? "synchronized_by_core" : "";
		const char *trouble = NULL;

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
		if (geterrcode() == ERRCODE_QUERY_CANCELED || geterrcode() == ERRCODE_ADMIN_SHUTDOWN)
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
	if (from_start || list.subscription != subscription)
		begin_list(subscription);
	MemoryContextSwitchTo(context);
	if (from_start)
		list.next = 0;
	else if (list.next == 0 || compare(&list.sequences[list.next - 1], schema, name) != 0)
	{
		list.next = position_of(schema, name);
		if (list.next < list.count && compare(&list.sequences[list.next], schema, name) == 0)
			list.next++;
	}
	limit = Min(limit, list.count - list.next);
	append_readable(list.next, limit, out);
	list.next += limit;
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	/* Whatever had to be looked up again. */
	if (nchanged > MAX_CHANGED)
		ResetCatalogCaches();
}

/*
 * Does the table have another problem for this sequence than this one (an empty reason: none)? From now on
 * the list has it.
 */
bool
replsync_sequence_problem_changes(Oid subscription, const char *schema, const char *name,
								  const char *reason, const char *detail, const char *hint)
{
	uint32 hash = hash_texts(detail, hint);
	ListedSequence *sequence;
	int at;

	if (list.subscription != subscription)
		return true;
	at = position_of(schema, name);
	if (at >= list.count || compare(&list.sequences[at], schema, name) != 0)
		return true;
	sequence = &list.sequences[at];
	if (reason[0] == '\0' ? sequence->problem == NULL
						  : sequence->problem != NULL && strcmp(sequence->problem, reason) == 0 &&
								sequence->problem_hash == hash)
		return false;
	sequence->problem = reason[0] == '\0' ? NULL : keep(reason);
	sequence->problem_hash = hash;
	list.news++;
	return true;
}
