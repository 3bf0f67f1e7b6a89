/*
 * Lapses of hot standby feedback: how often a reload of the configuration has found it off.
 *
 * It may be on again before the slot worker looks at the settings, and then nothing shows that the primary was free to remove
 * rows that copies need. So it is the postmaster that counts: it reads each change of the configuration before the walreceiver is
 * told of it, whatever the worker does. A process that was stopped for a while is told of the last one only.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/shmem.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"

#include "slot.h"

/* What is particular to the type of a parameter */
#if PG_VERSION_NUM >= 190000
#define AS_BOOL(parameter) (&(parameter)->_bool)
#define AS_INT(parameter)  (&(parameter)->_int)
#else
#define AS_BOOL(parameter) ((struct config_bool *) (parameter))
#define AS_INT(parameter)  ((struct config_int *) (parameter))
#endif

typedef struct FeedbackShared
{
	pg_atomic_uint32 lapses;
	pg_atomic_uint32 told; /* how many of them a core was told of */
} FeedbackShared;

/* NULL until there is shared memory: while the postmaster starts nothing can lapse. */
static FeedbackShared *shared = NULL;

/* What the core of an earlier worker was told of */
static uint32 told_before = 0;

/* The size of the shared memory */
Size
replsync_feedback_size(void)
{
	return sizeof(FeedbackShared);
}

/* Create or attach to the shared memory */
void
replsync_feedback_startup(void)
{
	bool found;

	shared = ShmemInitStruct("replsync feedback", sizeof(FeedbackShared), &found);
	if (!found)
	{
		pg_atomic_init_u32(&shared->lapses, 0);
		pg_atomic_init_u32(&shared->told, 0);
	}
}

/* Begin where the worker before this one has ended */
void
replsync_feedback_attach(void)
{
	told_before = pg_atomic_read_u32(&shared->told);
}

/* How many lapses there were since the last that the core of an earlier worker was told of */
uint32
replsync_feedback_lapses(void)
{
	uint32 lapses = pg_atomic_read_u32(&shared->lapses);

	pg_atomic_write_u32(&shared->told, lapses);
	return lapses - told_before;
}

static GucBoolAssignHook previous_assign_feedback = NULL;
static GucIntAssignHook previous_assign_interval = NULL;

/* Count a lapse, once: in the postmaster, whose shared memory it is from its start on */
static void
note_setting(bool on)
{
	if (!on && !IsUnderPostmaster && shared != NULL)
		(void) pg_atomic_fetch_add_u32(&shared->lapses, 1);
}

/* Take note of a value of hot_standby_feedback */
static void
assign_feedback(bool newval, void *extra)
{
	if (previous_assign_feedback)
		previous_assign_feedback(newval, extra);
	note_setting(newval);
}

/* Take note of a value of wal_receiver_status_interval */
static void
assign_interval(int newval, void *extra)
{
	if (previous_assign_interval)
		previous_assign_interval(newval, extra);
	note_setting(newval > 0);
}

/* Find a parameter of core */
static struct config_generic *
find_parameter(const char *name)
{
#if PG_VERSION_NUM >= 160000
	return find_option(name, false, false, ERROR);
#else
	struct config_generic **variables = get_guc_variables();

	for (int i = 0; i < GetNumConfigOptions(); i++)
	{
		if (strcmp(variables[i]->name, name) == 0)
			return variables[i];
	}
	elog(ERROR, "unrecognized configuration parameter \"%s\"", name);
#endif
}

/* Hear of changes to the settings that feedback depends on: core has no hook of its own there */
void
replsync_feedback_init(void)
{
	struct config_generic *feedback = find_parameter("hot_standby_feedback");
	struct config_generic *interval = find_parameter("wal_receiver_status_interval");

	previous_assign_feedback = AS_BOOL(feedback)->assign_hook;
	AS_BOOL(feedback)->assign_hook = assign_feedback;
	previous_assign_interval = AS_INT(interval)->assign_hook;
	AS_INT(interval)->assign_hook = assign_interval;
}
