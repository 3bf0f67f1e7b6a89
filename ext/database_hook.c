/*
 * Commands that need a database for themselves wait five seconds for others to leave it. 19 sends workers
 * away that allow it (BGWORKER_INTERRUPTIBLE); before, this does.
 */
#include "replsync.h"

#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "tcop/utility.h"
#include "utils/timestamp.h"

#include "sequence.h"

/* How long a worker is waited for, in milliseconds; it leaves within a fraction of that. */
#define LEAVE_WAIT_MS 3000

static ProcessUtility_hook_type previous_hook = NULL;

/* The value of an option of a command, NULL if it is not given */
static const char *
option_value(List *options, const char *name)
{
	ListCell *cell;

	foreach (cell, options)
	{
		DefElem *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, name) == 0 && option->arg != NULL)
			return defGetString(option);
	}
	return NULL;
}

/* The database that a command needs for itself, NULL if it is another kind of command */
static const char *
needed_database(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			return ((DropdbStmt *) statement)->dbname;
		case T_CreatedbStmt:
		{
			const char *template = option_value(((CreatedbStmt *) statement)->options, "template");

			return template ? template : "template1";
		}
		case T_AlterDatabaseStmt:
			if (option_value(((AlterDatabaseStmt *) statement)->options, "tablespace") != NULL)
				return ((AlterDatabaseStmt *) statement)->dbname;
			return NULL;
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
				return ((RenameStmt *) statement)->subname;
			return NULL;
		default:
			return NULL;
	}
}

/* Keep workers away from a database; true if one runs there */
static bool
hold(Oid database, int change)
{
	SequenceDatabase *entry;
	bool running = false;

	LWLockAcquire(replsync_sequences->lock, LW_EXCLUSIVE);
	entry = change > 0 ? replsync_enter_database(database) : replsync_find_database(database);
	if (entry != NULL)
	{
		entry->held = Max(entry->held + change, 0);
		running = entry->worker.pid != 0 || entry->starting;
		if (entry->held > 0 && entry->worker.pid != 0)
		{
			entry->leave = true;
			replsync_worker_wake(&entry->worker);
		}
		if (change < 0)
			replsync_wake_launcher();
	}
	LWLockRelease(replsync_sequences->lock);
	return running;
}

/* Let workers come again */
static void
release(int code, Datum arg)
{
	(void) hold(DatumGetObjectId(arg), -1);
}

/* Send the worker of a database away and wait until it is gone */
static void
send_away(Oid database)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LEAVE_WAIT_MS);

	if (!hold(database, 1))
		return;
	ConditionVariablePrepareToSleep(&replsync_sequences->changed);
	while (hold(database, 0) && GetCurrentTimestamp() < deadline)
		(void) ConditionVariableTimedSleep(&replsync_sequences->changed, 100, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
}

/* Run a command */
static void
run(PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context,
	ParamListInfo params, QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion)
{
	if (previous_hook)
		previous_hook(pstmt, query, read_only_tree, context, params, environment, dest, completion);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, environment, dest, completion);
}

/* The hook */
static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion)
{
	const char *name = needed_database(pstmt->utilityStmt);
	Oid database = name ? get_database_oid(name, true) : InvalidOid;

	/* Whether the caller may is the command's to say: until then no more than a pause has happened. */
	if (!OidIsValid(database))
	{
		run(pstmt, query, read_only_tree, context, params, environment, dest, completion);
		return;
	}
	PG_ENSURE_ERROR_CLEANUP(release, ObjectIdGetDatum(database));
	{
		send_away(database);
		run(pstmt, query, read_only_tree, context, params, environment, dest, completion);
	}
	PG_END_ENSURE_ERROR_CLEANUP(release, ObjectIdGetDatum(database));
	release(0, ObjectIdGetDatum(database));
}

/* Install the hook; only while the postmaster preloads */
void
replsync_install_database_hook(void)
{
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
