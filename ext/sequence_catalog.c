/*
 * The list of the sequences under care of a subscription. The catalogs are read when they have changed, and kept in a
 * compact form.
 */
#include "replsync.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_sequence.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "sequence.h"
#include "sequence_list.h"

/* How many rows are fetched at a time. */
#define FETCH_ROWS 2000

/* How much news of problems the list takes in before it is made anew. */
#define MAX_NEWS 10000

SequenceList replsync_list;

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
	", CASE WHEN c.oid IS NULL THEN EXISTS (SELECT FROM pg_catalog.pg_class o WHERE o.relname = m.sequence_name"
	" AND o.relnamespace = (SELECT x.oid FROM pg_catalog.pg_namespace x WHERE x.nspname = m.schema_name)) ELSE false END"
	" FROM replsync.sequence_member m"
	" LEFT JOIN (pg_catalog.pg_namespace n JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relkind = 'S'"
	" JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid)"
	" ON n.nspname = m.schema_name AND c.relname = m.sequence_name"
	" LEFT JOIN replsync.sequence_problem p ON p.subscription = m.subscription"
	" AND p.schema_name = m.schema_name AND p.sequence_name = m.sequence_name"
	" WHERE m.subscription = $1 ORDER BY m.schema_name, m.sequence_name";

/* Forget the list */
void
replsync_sequence_list_end(void)
{
	if (replsync_list.context != NULL)
		MemoryContextDelete(replsync_list.context);
	memset(&replsync_list, 0, sizeof(replsync_list));
}

/* Keep a text as long as the list, without an allocation for each */
static const char *
keep(const char *text)
{
	Size size = strlen(text) + 1;
	char *copy;

	if (size > replsync_list.pool_left)
	{
		replsync_list.pool_left = Max(size, 65536);
		replsync_list.pool = MemoryContextAlloc(replsync_list.context, replsync_list.pool_left);
	}
	copy = memcpy(replsync_list.pool, text, size);
	replsync_list.pool += size;
	replsync_list.pool_left -= size;
	return copy;
}

/* Keep a definition, or find it: it is often that of the sequence before */
static const SequenceDefinition *
keep_definition(const SequenceDefinition *definition, const SequenceDefinition *before)
{
	SequenceDefinition *copy;

	if (before != NULL && memcmp(before, definition, sizeof(*definition)) == 0)
		return before;
	copy = MemoryContextAlloc(replsync_list.context, sizeof(*copy));
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
	ListedSequence *sequence = &replsync_list.sequences[replsync_list.count];
	SequenceDefinition definition;
	const char *schema;
	bool isnull;

	memset(sequence, 0, sizeof(*sequence));
	schema = NameStr(*DatumGetName(value_of(row, 1, &isnull)));
	if (replsync_list.count > 0 && strcmp(sequence[-1].schema, schema) == 0)
		sequence->schema = sequence[-1].schema;
	else
		sequence->schema = keep(schema);
	sequence->name = keep(NameStr(*DatumGetName(value_of(row, 2, &isnull))));
	sequence->oid = DatumGetObjectId(value_of(row, 3, &isnull));
	if (isnull)
	{
		sequence->oid = InvalidOid;
		sequence->taken = DatumGetBool(value_of(row, 17, &isnull));
		replsync_list.any_taken |= sequence->taken;
	}
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
		sequence->definition = keep_definition(&definition, replsync_list.count > 0 ? sequence[-1].definition : NULL);
		sequence->by_core = DatumGetBool(value_of(row, 16, &isnull));
	}
	(void) value_of(row, 13, &isnull);
	if (!isnull)
	{
		sequence->problem = keep(SPI_getvalue(row, SPI_tuptable->tupdesc, 13));
		sequence->problem_hash = hash_texts(SPI_getvalue(row, SPI_tuptable->tupdesc, 14),
											SPI_getvalue(row, SPI_tuptable->tupdesc, 15));
	}
	replsync_list.count++;
}

/* Read the catalogs */
static void
read_list(Oid subscription)
{
	Oid types[] = {OIDOID};
	Datum values[] = {ObjectIdGetDatum(subscription)};
	Portal portal;
	int nest_level;

	replsync_changes_watch();
	replsync_sequence_list_end();
	replsync_list.context = AllocSetContextCreate(TopMemoryContext, "replsync sequences", ALLOCSET_DEFAULT_SIZES);
	replsync_changes_seen();

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
		if (replsync_list.count + (int) SPI_processed > replsync_list.capacity)
		{
			replsync_list.capacity += Max(replsync_list.capacity / 4, FETCH_ROWS);
			if (replsync_list.sequences == NULL)
				replsync_list.sequences = MemoryContextAllocHuge(replsync_list.context, sizeof(ListedSequence) * replsync_list.capacity);
			else
				replsync_list.sequences = repalloc_huge(replsync_list.sequences, sizeof(ListedSequence) * replsync_list.capacity);
		}
		for (uint64 i = 0; i < SPI_processed; i++)
			keep_row(SPI_tuptable->vals[i]);
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	SPI_finish();
	PopActiveSnapshot();
	replsync_list.subscription = subscription;
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

/* Begin with the first sequence of a subscription; the catalogs are read again where the list may be outdated */
void
replsync_list_begin(Oid subscription)
{
	/* First, so that the members are not older. */
	TransactionId version = selection_version(subscription);

	if (replsync_list.context != NULL && replsync_list.subscription == subscription && TransactionIdIsValid(version) &&
		version == list_version && replsync_list.news <= MAX_NEWS && replsync_changes_are_of_others())
	{
		replsync_changes_seen();
		return;
	}
	read_list(subscription);
	list_version = version;
}

/* Compare a listed name with another one */
int
replsync_list_compare(const ListedSequence *sequence, const char *schema, const char *name)
{
	int order = strcmp(sequence->schema, schema);

	return order != 0 ? order : strcmp(sequence->name, name);
}

/* The first sequence that is not before a name */
int
replsync_list_position(const char *schema, const char *name)
{
	int low = 0;
	int high = replsync_list.count;

	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (replsync_list_compare(&replsync_list.sequences[middle], schema, name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Look again at a sequence that may have changed; the caller has a lock on it */
void
replsync_list_look_again(ListedSequence *sequence)
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

	if (replsync_list.subscription != subscription)
		return true;
	at = replsync_list_position(schema, name);
	if (at >= replsync_list.count || replsync_list_compare(&replsync_list.sequences[at], schema, name) != 0)
		return true;
	sequence = &replsync_list.sequences[at];
	if (reason[0] == '\0' ? sequence->problem == NULL
						  : sequence->problem != NULL && strcmp(sequence->problem, reason) == 0 &&
								sequence->problem_hash == hash)
		return false;
	sequence->problem = reason[0] == '\0' ? NULL : keep(reason);
	sequence->problem_hash = hash;
	replsync_list.news++;
	return true;
}
