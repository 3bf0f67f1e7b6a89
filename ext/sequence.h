/*
 * What the files about sequences share.
 */
#ifndef REPLSYNC_SEQUENCE_H
#define REPLSYNC_SEQUENCE_H

#include "lib/stringinfo.h"
#include "storage/buf.h"
#include "storage/bufmgr.h"
#if PG_VERSION_NUM >= 160000
#include "storage/relfilelocator.h"
#else
#include "storage/relfilenode.h"
#endif

#include "utils/array.h"

#include "core_api.h"
#include "sequence_shmem.h"
#include "wire.h"

/* launcher.c */
extern void replsync_register_launcher(void);
extern void replsync_worker_failed(SequenceDatabase *entry);
extern void replsync_worker_idle(SequenceDatabase *entry);

/* sequence_worker.c: a worker's life */
extern void replsync_sequence_worker_begin(Oid database);
extern bool replsync_sequence_worker_wanted(void);
extern bool replsync_sequence_has_tables(void);
extern void replsync_sequence_worker_check(void);
extern void replsync_sequence_worker_stop(void);
extern bool replsync_sequence_poked(void);
extern void replsync_sequence_show_error(const CoreOutcome *outcome);
extern void replsync_sequence_show_state(CoreWorkerState state, TimestampTz next_cycle_at);
extern void replsync_sequence_publish_progress(const CoreProgress *progress);
extern void replsync_sequence_cycle_done(const CoreSequenceCycle *cycle);

/* sequence_answer.c: requests, on the worker's side */
extern void replsync_sequence_take_request(StringInfo out);
extern void replsync_sequence_answer(CoreRequest *request);
extern bool replsync_sequence_answers_pending(void);
extern void replsync_sequence_answers_continue(void);

/* sequence_request.c: requests, on the caller's side */
typedef void (*SequenceRowReader)(WireReader *in, void *arg);
extern void replsync_sequence_request(const StringInfoData *request, SequenceRowReader reader, void *arg);
extern void replsync_sequence_notify_at_commit(void);

/* sequence_file.c: where a sequence stands */
#if PG_VERSION_NUM >= 160000
typedef RelFileLocator SequenceLocator;
#else
typedef RelFileNode SequenceLocator;
#endif

typedef struct SequenceFile
{
	SequenceLocator locator;
	bool permanent; /* not unlogged */
} SequenceFile;

typedef struct SequencePosition
{
	int64 last_value;
	bool is_called;
} SequencePosition;

extern void replsync_sequence_file(SequenceFile *file, Oid tablespace, Oid filenode, char persistence);
extern SequencePosition replsync_sequence_read(const SequenceFile *file, BufferAccessStrategy strategy);
extern SequencePosition replsync_sequence_raise(const SequenceFile *file, BufferAccessStrategy strategy,
												SequencePosition to, int64 increment, bool backwards,
												SequencePosition *before);
extern bool replsync_lock_in_time(Oid relid, int lockmode, int *budget_ms);

/* sequence_list.c: in batches, with positions */
extern void replsync_sequence_list(WireReader *in, StringInfo out);

/* sequence_catalog.c: what the list has of the catalogs */
extern void replsync_sequence_list_end(void);
extern bool replsync_sequence_problem_changes(Oid subscription, const char *schema, const char *name,
											  const char *reason, const char *detail, const char *hint);

/* sequence_set.c */
extern void replsync_sequence_set(WireReader *in, StringInfo out);

/* sequence_members.c */
typedef struct SequenceNames
{
	ArrayBuildState *schemas;
	ArrayBuildState *names;
	MemoryContext context;
	int left_out; /* this database cannot have them */
} SequenceNames;

extern int64 replsync_replace_members(Oid subscription, Datum schemas, Datum names);
extern void replsync_add_name(SequenceNames *list, const char *schema, const char *name);
extern Datum replsync_finish_names(SequenceNames *list, ArrayBuildState *state);
extern void replsync_sequence_members(WireReader *in);

/* sequence_funcs.c: what the SQL functions share */
/* A row of an answer */
typedef struct AnswerRow
{
	char *schema;
	char *name;
	bool named; /* both can be written in this database's encoding */
	int64 publisher_value;
	bool publisher_is_called;
	bool publisher_known;
	int64 before;
	int64 after;
	bool local_known;
	char *action;
	char *reason;
	char *check;
	char *object;
	int32 ok; /* -1: not known */
	char *detail;
	char *hint;
	XLogRecPtr lsn;
} AnswerRow;

extern AnswerRow replsync_answer_row(WireReader *in);
extern Oid replsync_sequence_command(FunctionCallInfo fcinfo, const char *command, bool writes);
extern void replsync_no_rules(Oid subscription);
extern void replsync_begin_request(StringInfo text, CoreSequenceRequestKind kind, bool allow_backwards, Oid subscription);
extern void replsync_put_rules_of(StringInfo text, Oid subscription);

/* sequence_selection.c */
extern void replsync_require_committed_rules(void);
extern void replsync_request_sync(Oid subscription);
extern void replsync_disown_foreign_rules(void);

/* sequence_state.c */
extern void replsync_sequence_subscriptions(StringInfo out);
extern void replsync_sequence_record(WireReader *in);
extern void replsync_sequence_finish(WireReader *in);

/* sequence_live.c: what is kept in memory for sequence_status */
extern void replsync_live_record(Oid subscription, Oid relid, const SequencePosition *publisher, bool failed);
extern void replsync_live_watermark(Oid subscription, uint64 lsn, uint64 system_identifier, uint32 timeline);
extern void replsync_live_forget(Oid subscription);
extern void replsync_live_forget_errors(void);

/* database_hook.c */
extern void replsync_install_database_hook(void);

/* subscription.c: a subscription and the rules for its sequences */
extern Oid replsync_own_subscription(const char *name);
extern void replsync_put_subscription(StringInfo out, Oid subscription);
extern void replsync_put_rules(StringInfo out, bool all, ArrayType *include, ArrayType *exclude, int64 margin);
extern void replsync_put_no_state(StringInfo out);
extern bool replsync_put_stored_rules(StringInfo out, Oid subscription, const char *name);

/* sequence_spi.c: statements on the extension's tables */
extern void replsync_spi_begin(void);
extern void replsync_spi_end(void);
extern uint64 replsync_spi(const char *sql, int nargs, const Oid *types, const Datum *values);
extern Datum replsync_spi_value(uint64 row, int column, bool *isnull);

#endif
