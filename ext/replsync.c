/*
 * The preloaded library: configuration and registration. It references no symbol of
 * the Go core, so that neither the postmaster nor a client backend ever loads Go.
 */
#include "replsync.h"

#include <limits.h>

#include "fmgr.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "hold_back.h"
#include "sequence.h"
#include "shmem.h"
#include "slot.h"
#include "slot_news.h"
#include "slot_patterns.h"
#include "worker.h"

PG_MODULE_MAGIC;

void _PG_init(void);

bool replsync_sync_slots;
bool replsync_sync_sequences;
int replsync_connect_timeout;
int replsync_remote_timeout;
char *replsync_slots;

/* Read by the core through their names. */
static char *primary_conninfo;
static char *maintenance_database;
static int slot_naptime_min;
static int slot_naptime_max;
static int sequence_naptime_min;
static int sequence_naptime_max;

/* Read as its list. */
static char *standby_slots;

#if PG_VERSION_NUM < 170000
#define assign_slots		replsync_assign_slots
#define assign_standby_list replsync_assign_standby_list
#else
#define assign_slots		NULL
#define assign_standby_list NULL
#endif

/* Check replsync.slots: a list of patterns */
static bool
check_slots(char **newval, void **extra, GucSource source)
{
	const char *bad;
	int length;

	if (replsync_slot_patterns_valid(*newval, &bad, &length))
		return true;
	GUC_check_errdetail("\"%.*s\" is not a slot name pattern.", length, bad);
	GUC_check_errhint("Give a comma-separated list of slot names with * and ?, \"!pattern\" to exclude, or \"@failover\".");
	return false;
}

/*
 * Check that a connection string can be read and holds no secret. The message is not the
 * usual one, which quotes the value.
 */
static bool
check_conninfo(char **newval, void **extra, GucSource source)
{
	static const char *const secrets[] = {"password", "sslpassword", "scram_client_key",
										  "scram_server_key", "oauth_client_secret"};
	PQconninfoOption *options;
	const char *found = NULL;

	if (**newval == '\0')
		return true;
	/* libpq's own message may quote a piece of a password: it is not passed on. */
	options = PQconninfoParse(*newval, NULL);
	if (options == NULL)
	{
		GUC_check_errmsg("invalid connection string in parameter \"replsync.primary_conninfo\"");
		GUC_check_errdetail("The value is not a connection string that libpq can read.");
		GUC_check_errhint("Give it as \"host=... port=... user=...\" or as a URI.");
		return false;
	}
	for (PQconninfoOption *option = options; option->keyword != NULL && found == NULL; option++)
	{
		if (option->val == NULL || option->val[0] == '\0')
			continue;
		for (size_t i = 0; i < lengthof(secrets); i++)
		{
			if (strcmp(option->keyword, secrets[i]) == 0)
				found = secrets[i];
		}
	}
	PQconninfoFree(options);
	if (found != NULL)
	{
		GUC_check_errmsg("parameter \"replsync.primary_conninfo\" must not contain a password");
		GUC_check_errdetail("It contains \"%s\", and the server logs changed settings and shows them to monitoring roles.", found);
		GUC_check_errhint("Put the password into a password file and name it with \"passfile\", or leave this parameter empty to use primary_conninfo.");
		return false;
	}
	return true;
}

/* Check that a database is named */
static bool
check_not_empty(char **newval, void **extra, GucSource source)
{
	if (**newval != '\0')
		return true;
	GUC_check_errdetail("A database must be named.");
	return false;
}

/* Define a parameter that is a span of time in milliseconds */
static void
define_time(const char *name, const char *description, const char *more,
			int *variable, int value, int min)
{
	DefineCustomIntVariable(name, description, more, variable, value, min, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
}

/* Define the configuration parameters */
static void
define_parameters(void)
{
	DefineCustomBoolVariable("replsync.sync_slots",
							 "Runs the slot worker while the server is a standby.",
							 NULL, &replsync_sync_slots, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("replsync.slots",
							   "Sets which logical slots of the primary are kept on this standby.",
							   "A comma-separated list of patterns with * and ?; \"!pattern\" excludes, \"@failover\" means the slots that the primary marks for failover. If empty, \"@failover\" on version 17 and later and all slots before.",
							   &replsync_slots, "", PGC_SIGHUP, GUC_LIST_INPUT, check_slots,
							   assign_slots, NULL);
	DefineCustomStringVariable(HOLD_BACK_PARAMETER,
							   "Sets the physical slots that must confirm WAL before logical slots send it.",
							   "A comma-separated list, of which all must confirm, or \"ANY n (list)\"; for the slots that replsync.slots names, on versions 15 and 16.",
							   &standby_slots, "", PGC_SIGHUP, GUC_LIST_INPUT, replsync_check_standby_list,
							   assign_standby_list, NULL);
	DefineCustomStringVariable("replsync.primary_conninfo",
							   "Sets the connection string to the primary.",
							   "If empty, primary_conninfo is used. A password does not belong here.",
							   &primary_conninfo, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   check_conninfo, NULL, NULL);
	DefineCustomStringVariable("replsync.maintenance_database",
							   "Sets the database to connect to where the connection string names none.",
							   NULL, &maintenance_database, "postgres",
							   PGC_SIGHUP, 0, check_not_empty, NULL, NULL);
	define_time("replsync.slot_naptime_min",
				"Sets the pause between slot cycles while slots move.",
				NULL, &slot_naptime_min, 10, 10);
	define_time("replsync.slot_naptime_max",
				"Sets the longest pause between slot cycles, while nothing moves.",
				NULL, &slot_naptime_max, 10000, 10);
	DefineCustomBoolVariable("replsync.sync_sequences",
							 "Runs the sequence workers while the server is not a standby.",
							 NULL, &replsync_sync_sequences, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	define_time("replsync.sequence_naptime_min",
				"Sets the pause between sequence cycles while sequences move.",
				NULL, &sequence_naptime_min, 2000, 10);
	define_time("replsync.sequence_naptime_max",
				"Sets the longest pause between sequence cycles, while nothing moves.",
				NULL, &sequence_naptime_max, 30000, 10);
	define_time("replsync.connect_timeout",
				"Sets the longest time that a connect to another server may take.",
				NULL, &replsync_connect_timeout, 10000, 1000);
	define_time("replsync.remote_timeout",
				"Sets the longest time that a statement on another server may take.",
				NULL, &replsync_remote_timeout, 30000, 1000);
	MarkGUCPrefixReserved("replsync");
}

/* Initialize the library */
void
_PG_init(void)
{
	/* Without preloading, the functions for a primary work, and the others say what is missing. */
	if (!process_shared_preload_libraries_in_progress)
		return;
	replsync_slot_news_init();
	define_parameters();
	replsync_shmem_init();
	replsync_install_database_hook();
	replsync_feedback_init();
#if PG_VERSION_NUM < 170000
	replsync_hold_back_init();
#endif
	if (!IsBinaryUpgrade)
	{
		replsync_register_slot_worker();
		replsync_register_launcher();
	}
}
