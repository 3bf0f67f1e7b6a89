/*
 * What is shown of a worker of either kind, and how it is woken.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "worker_state.h"

/* This process is the worker from now on */
void
replsync_worker_enter(WorkerState *worker)
{
	worker->pid = MyProcPid;
	worker->latch = MyLatch;
	worker->started_at = GetCurrentTimestamp();
	replsync_worker_show(worker, CORE_STATE_STARTING, 0);
}

/* The worker is gone */
void
replsync_worker_leave(WorkerState *worker)
{
	worker->pid = 0;
	worker->latch = NULL;
	worker->progress.phase[0] = '\0';
}

/* Wake the worker, if there is one */
void
replsync_worker_wake(const WorkerState *worker)
{
	if (worker->latch)
		SetLatch(worker->latch);
}

/* Show what the worker does, and when the next cycle is due; 0: when something happens */
void
replsync_worker_show(WorkerState *worker, CoreWorkerState state, TimestampTz next_cycle_at)
{
	worker->state = state;
	worker->next_cycle_at = next_cycle_at;
}

/* Show an error */
void
replsync_worker_show_error(WorkerState *worker, const CoreOutcome *outcome)
{
	worker->last_error = *outcome;
	worker->last_error_at = GetCurrentTimestamp();
}

/* Count a cycle that is over, and show how it ended */
void
replsync_worker_cycle_done(WorkerState *worker, int64 duration_us, const CoreOutcome *outcome)
{
	worker->cycles++;
	worker->last_cycle_at = GetCurrentTimestamp();
	worker->last_cycle_us = duration_us;
	worker->progress.phase[0] = '\0';
	if (outcome->sqlstate[0] != '\0')
		replsync_worker_show_error(worker, outcome);
}

/* Forget what was counted, and the last error */
void
replsync_worker_reset(WorkerState *worker)
{
	worker->cycles = 0;
	memset(&worker->last_error, 0, sizeof(worker->last_error));
	worker->last_error_at = 0;
}
