/*
 * Where a sequence stands, read and set in its one page.
 *
 * core's setval() opens the relation: 100 000 of them leave 300 MB of relation cache in a process. And
 * nothing holds nextval() off between a comparison and a setval(): here both happen under the lock of the page.
 * What is written is what do_setval() (sequence.c) writes.
 */
#include "replsync.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "commands/sequence.h"
#if PG_VERSION_NUM >= 190000
#include "commands/sequence_xlog.h"
#endif
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufpage.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/timestamp.h"

#include "sequence.h"

#if PG_VERSION_NUM < 190000
/* Private to sequence.c */
#define SEQ_MAGIC 0x1717

typedef struct sequence_magic
{
	uint32 magic;
} sequence_magic;
#endif

/* Pause between attempts to get a lock, in milliseconds. */
#define LOCK_POLL_MS 10

/* Say which file a row of pg_class means */
void
replsync_sequence_file(SequenceFile *file, Oid tablespace, Oid filenode, char persistence)
{
	Oid space = OidIsValid(tablespace) ? tablespace : MyDatabaseTableSpace;

#if PG_VERSION_NUM >= 160000
	file->locator = (RelFileLocator){.spcOid = space, .dbOid = MyDatabaseId, .relNumber = filenode};
#else
	file->locator = (RelFileNode){.spcNode = space, .dbNode = MyDatabaseId, .relNode = filenode};
#endif
	file->permanent = persistence == RELPERSISTENCE_PERMANENT;
}

/* Lock the page of a sequence and find its tuple; as read_seq_tuple() */
static Form_pg_sequence_data
lock_tuple(const SequenceFile *file, BufferAccessStrategy strategy, int mode, Buffer *buffer, HeapTuple tuple)
{
	Page page;
	ItemId item;

	*buffer = ReadBufferWithoutRelcache(file->locator, MAIN_FORKNUM, 0, RBM_NORMAL, strategy, file->permanent);
	LockBuffer(*buffer, mode);
	page = BufferGetPage(*buffer);
	if (PageIsNew(page) || ((sequence_magic *) PageGetSpecialPointer(page))->magic != SEQ_MAGIC)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("bad magic number in the file of a sequence")));
	item = PageGetItemId(page, FirstOffsetNumber);
	tuple->t_data = (HeapTupleHeader) PageGetItem(page, item);
	tuple->t_len = ItemIdGetLength(item);
	return (Form_pg_sequence_data) GETSTRUCT(tuple);
}

/* Read where a sequence stands; the caller has a lock on it */
SequencePosition
replsync_sequence_read(const SequenceFile *file, BufferAccessStrategy strategy)
{
	Buffer buffer;
	HeapTupleData tuple;
	Form_pg_sequence_data data = lock_tuple(file, strategy, BUFFER_LOCK_SHARE, &buffer, &tuple);
	SequencePosition position = {.last_value = data->last_value, .is_called = data->is_called};

	UnlockReleaseBuffer(buffer);
	return position;
}

/* Is a sequence that stands at a position to be moved to another one? */
static bool
is_to_move(const SequencePosition *from, const SequencePosition *to, int64 increment, bool backwards)
{
	if (from->last_value == to->last_value)
		return from->is_called != to->is_called && (backwards || to->is_called);
	if (backwards)
		return true;
	return increment > 0 ? to->last_value > from->last_value : to->last_value < from->last_value;
}

/* Write a new position into the page that is locked; as do_setval() */
static void
write_tuple(const SequenceFile *file, Buffer buffer, HeapTuple tuple, Form_pg_sequence_data data,
			const SequencePosition *to)
{
	/* With an id of its own, the transaction's commit waits until the WAL is on disk. */
	if (file->permanent)
		(void) GetTopTransactionId();

	START_CRIT_SECTION();
	data->last_value = to->last_value;
	data->is_called = to->is_called;
	data->log_cnt = 0;
	MarkBufferDirty(buffer);
	if (file->permanent)
	{
		xl_seq_rec record;
		XLogRecPtr lsn;

		XLogBeginInsert();
		XLogRegisterBuffer(0, buffer, REGBUF_WILL_INIT);
#if PG_VERSION_NUM >= 160000
		record.locator = file->locator;
#else
		record.node = file->locator;
#endif
		XLogRegisterData((char *) &record, sizeof(record));
		XLogRegisterData((char *) tuple->t_data, tuple->t_len);
		/* PageSetLSN() is a macro that evaluates its arguments more than once. */
		lsn = XLogInsert(RM_SEQ_ID, XLOG_SEQ_LOG);
		PageSetLSN(BufferGetPage(buffer), lsn);
	}
	END_CRIT_SECTION();
}

/*
 * Move a sequence, unless that were backwards in its own direction, which must be allowed. Returns
 * where it stands then. The caller has a lock on it that keeps its file.
 */
SequencePosition
replsync_sequence_raise(const SequenceFile *file, BufferAccessStrategy strategy, SequencePosition to,
						int64 increment, bool backwards, SequencePosition *before)
{
	Buffer buffer;
	HeapTupleData tuple;
	Form_pg_sequence_data data = lock_tuple(file, strategy, BUFFER_LOCK_EXCLUSIVE, &buffer, &tuple);
	bool moves;

	before->last_value = data->last_value;
	before->is_called = data->is_called;
	moves = is_to_move(before, &to, increment, backwards);
	if (moves)
		write_tuple(file, buffer, &tuple, data, &to);
	UnlockReleaseBuffer(buffer);
	return moves ? to : *before;
}

/*
 * Lock a relation, waiting no longer than what is left of a budget in all: nobody detects a deadlock
 * with a backend that waits for this process.
 */
bool
replsync_lock_in_time(Oid relid, int lockmode, int *budget_ms)
{
	for (;;)
	{
		if (ConditionalLockRelationOid(relid, lockmode))
			return true;
		if (*budget_ms <= 0)
			return false;
		/* Not on the latch: it may be set, and stays so for the main loop. */
		(void) WaitLatch(NULL, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LOCK_POLL_MS, PG_WAIT_EXTENSION);
		CHECK_FOR_INTERRUPTS();
		*budget_ms -= LOCK_POLL_MS;
	}
}
