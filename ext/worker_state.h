/*
 * What is shown of a worker of either kind. It lies in the shared memory of its kind, whose lock protects it: all
 * functions are called with that held, exclusively.
 */
#ifndef REPLSYNC_WORKER_STATE_H
#define REPLSYNC_WORKER_STATE_H

#include "core_api.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

/* The kinds, as the core and the views name them. */
#define KIND_SLOTS	   "slots"
#define KIND_SEQUENCES "sequences"

/* What is counted, and the last error, survive a restart of the worker. */
typedef struct WorkerState
{
	pid_t pid; /* 0: none is running */
	Latch *latch;
	int state; /* CoreWorkerState */
	TimestampTz started_at;
	TimestampTz last_cycle_at;
	TimestampTz next_cycle_at;
	int64 last_cycle_us;
	int64 cycles;
	CoreOutcome last_error;
	TimestampTz last_error_at;
	CoreProgress progress;
} WorkerState;

extern void replsync_worker_enter(WorkerState *worker);
extern void replsync_worker_leave(WorkerState *worker);
extern void replsync_worker_wake(const WorkerState *worker);
extern void replsync_worker_show(WorkerState *worker, CoreWorkerState state, TimestampTz next_cycle_at);
extern void replsync_worker_show_error(WorkerState *worker, const CoreOutcome *outcome);
extern void replsync_worker_cycle_done(WorkerState *worker, int64 duration_us, const CoreOutcome *outcome);
extern void replsync_worker_reset(WorkerState *worker);

#endif
