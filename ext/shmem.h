/*
 * What the slot worker and client backends share.
 */
#ifndef REPLSYNC_SHMEM_H
#define REPLSYNC_SHMEM_H

#include "core_api.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"

#include "wire.h"
#include "worker_state.h"

/* What is shown of a slot. */
typedef struct SlotStatus
{
	char name[CORE_NAME_LEN];
	char database[CORE_NAME_LEN];
	char plugin[CORE_NAME_LEN];
	char state[16];
	char action[16];
	char reason[CORE_NAME_LEN];
	char hint[CORE_TEXT_LEN];
	char error[CORE_TEXT_LEN]; /* of the last pass; empty if none */
	uint64 remote_restart_lsn;
	uint64 remote_confirmed_flush_lsn;
	uint64 restart_lsn;
	uint64 confirmed_flush_lsn;
	int64 last_sync_at; /* microseconds since 1970, 0: never */
} SlotStatus;

/* A row of slot_status; the history survives a restart of the worker. */
typedef struct SlotStatusRow
{
	SlotStatus status;
	char last_error[CORE_TEXT_LEN];
	TimestampTz last_error_at;
	int64 error_count;
} SlotStatusRow;

/* A row of sync_slots(): of the last pass that somebody asked for. */
typedef struct SyncRow
{
	char name[CORE_NAME_LEN];
	char database[CORE_NAME_LEN];
	char action[16];
	bool ready;
	char reason[CORE_TEXT_LEN];
} SyncRow;

typedef struct ReplsyncShared
{
	LWLock *lock;			/* protects all below */
	ConditionVariable done; /* a pass or a command is over, or the worker is gone */

	WorkerState worker;
	uint64 incarnation;	 /* of the worker: a request made of one is lost with it */
	bool copies_settled; /* no standby any more, and the copies know it */

	/*
	 * sync_slots(): a caller raises requested and waits until a pass that began
	 * after that has ended.
	 */
	uint64 sync_requested;
	uint64 sync_begun;
	uint64 sync_done;
	CoreOutcome sync_outcome; /* of the last pass that was asked for */
	int sync_nrows;

	/* one command at a time; its owner waits for done */
	bool command_busy;
	bool command_taken;
	bool command_done;
	int command; /* CoreCommand */
	char command_argument[CORE_TEXT_LEN];
	CoreCommandResult command_result;

	/* maxrows rows of each kind */
	int maxrows;
	int nrows;
	SyncRow *sync_rows;
	SlotStatusRow rows[FLEXIBLE_ARRAY_MEMBER];
} ReplsyncShared;

/* NULL where the library was not preloaded. */
extern ReplsyncShared *replsync_shared;

extern void replsync_shmem_init(void);
extern void replsync_attach_worker(void);
extern void replsync_set_error(const CoreOutcome *outcome);
extern void replsync_publish_pass(const CorePass *pass, WireReader *rows);
extern void replsync_publish_progress(const CoreProgress *progress);
extern void replsync_publish_command(const CoreCommandResult *result);
extern void replsync_begin_cycle(CoreWakeup *wakeup);
extern bool replsync_something_requested(void);
extern void replsync_show_state(CoreWorkerState state, TimestampTz next_cycle_at);

#endif
