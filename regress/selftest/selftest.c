/*
 * Starts workers of the kind "selftest", whose core is built with the tag selftest: for tests
 * of the boundary between the shim and the core.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/builtins.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(selftest_start);

/* Start a worker in this database; the argument is what selftest.go understands. Returns its pid */
Datum
selftest_start(PG_FUNCTION_ARGS)
{
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;
	pid_t pid;

	memset(&worker, 0, sizeof(worker));
	strlcpy(worker.bgw_name, "replsync selftest", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "replsync selftest", BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "replsync", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "replsync_worker_main", BGW_MAXLEN);
	snprintf(worker.bgw_extra, BGW_EXTRALEN, "selftest:%s", text_to_cstring(PG_GETARG_TEXT_PP(0)));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = RecoveryInProgress() ? BgWorkerStart_ConsistentState : BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId);
	worker.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&worker, &handle) ||
		WaitForBackgroundWorkerStartup(handle, &pid) != BGWH_STARTED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not start a self-test worker")));
	PG_RETURN_INT32(pid);
}
