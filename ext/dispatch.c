/*
 * Carrying out the core's requests. All of it runs inside PG_TRY here: an error
 * becomes the answer, and leaves nothing held.
 */
#include "replsync.h"

#include <pwd.h>
#include <unistd.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port.h"
#include "storage/condition_variable.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "check.h"
#include "core.h"
#include "sequence.h"
#include "shmem.h"
#include "slot.h"
#include "worker.h"

extern char **environ;

/* Step to the next of the texts that each end with a NUL */
static const char *
next_text(const char **at, const char *end)
{
	const char *text = *at;

	if (text >= end)
		return "";
	*at = text + strnlen(text, end - text) + 1;
	return text;
}

/* Write a line of the core to the server log */
static void
write_log(const CoreRequest *request)
{
	const CoreLog *line = request->data;
	const char *at = line->text;
	const char *end = (const char *) request->data + request->len;
	const char *sqlstate = next_text(&at, end);
	const char *message = next_text(&at, end);
	const char *detail = next_text(&at, end);
	const char *hint = next_text(&at, end);
	int elevel = line->level == CORE_LOG_WARNING ? WARNING : line->level == CORE_LOG_LOG ? LOG
																						 : DEBUG1;

	ereport(elevel,
			(strlen(sqlstate) == 5 ? errcode(MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2],
														   sqlstate[3], sqlstate[4]))
								   : 0,
			 errmsg_internal("%s", message),
			 *detail ? errdetail_internal("%s", detail) : 0,
			 *hint ? errhint("%s", hint) : 0));
}

/* Answer with the values of server parameters, in base units */
static void
read_settings(const CoreRequest *request, StringInfo out)
{
	const char *at = request->data;
	const char *end = at + request->len;

	while (at < end)
	{
		const char *value = GetConfigOption(next_text(&at, end), true, false);

		appendStringInfoString(out, value ? value : "");
		appendStringInfoChar(out, '\0');
	}
}

/* Append NAME=value */
static void
append_variable(StringInfo out, const char *name, const char *value)
{
	appendStringInfo(out, "%s=%s", name, value);
	appendStringInfoChar(out, '\0');
}

/*
 * Answer with the environment that libpq would see, and what it has compiled in. Go sees no
 * environment: PostgreSQL has moved it for the process title.
 */
static void
read_environment(StringInfo out)
{
	char path[MAXPGPATH];
	struct passwd *account = getpwuid(geteuid());

	for (char **entry = environ; entry && *entry; entry++)
	{
		if (strncmp(*entry, "PG", 2) == 0)
			appendBinaryStringInfo(out, *entry, strlen(*entry) + 1);
	}
	if (get_home_path(path))
		append_variable(out, "HOME", path);
	if (account != NULL)
		append_variable(out, "USER", account->pw_name);
	append_variable(out, "SOCKETDIR", DEFAULT_PGSOCKET_DIR);
	get_etc_path(my_exec_path, path);
	append_variable(out, "SYSCONFDIR", path);
}

/* Carry out one request; the answer goes to out. Returns false where it comes later */
static bool
carry_out(CoreRequest *request, StringInfo out)
{
	WireReader in = {request->data, (const char *) request->data + request->len};
	const CoreSlot *slot = request->data;

	switch ((CoreRequestKind) request->kind)
	{
		case CORE_LOG:
			write_log(request);
			break;
		case CORE_NAP:
			replsync_nap_begin(request->id, request->data);
			return false;
		case CORE_TRIM:
			replsync_core_release_memory();
			break;
		case CORE_WAKE:
			replsync_nap_wake();
			break;
		case CORE_SETTINGS:
			read_settings(request, out);
			break;
		case CORE_ENVIRONMENT:
			read_environment(out);
			break;
		case CORE_RECOVERY:
		{
			CoreRecovery recovery = {0};

			replsync_recovery_state(&recovery);
			appendBinaryStringInfo(out, (char *) &recovery, sizeof(recovery));
			break;
		}
		case CORE_SLOT_LIST:
			replsync_slot_list(out);
			break;
		case CORE_SLOT_RESERVE:
			replsync_slot_reserve(slot->restart_lsn, slot->catalog_xmin);
			break;
		case CORE_SLOT_CREATE:
			replsync_slot_create(slot);
			break;
		case CORE_SLOT_SYNC:
			replsync_slot_sync_names();
			break;
		case CORE_SLOT_UPDATE:
			replsync_slot_update(slot);
			break;
		case CORE_SLOT_DROP:
			replsync_slot_drop(slot);
			break;
		case CORE_SLOT_MOVE:
			replsync_slot_move(slot, (int) (request->len / sizeof(CoreSlot)), out);
			break;
		case CORE_SLOT_SAVE:
			replsync_slot_save(slot, (int) (request->len / sizeof(CoreSlot)), out);
			break;
		case CORE_WAL_AVAILABLE:
			appendStringInfoChar(out, replsync_wal_available(*(uint64_t *) request->data));
			break;
		case CORE_WAL_RUNNING:
			appendStringInfoChar(out, replsync_is_running_xacts(*(uint64_t *) request->data));
			break;
		case CORE_FEEDBACK:
			replsync_request_feedback();
			break;
		case CORE_PROGRESS:
			if (replsync_is_sequence_worker())
				replsync_sequence_publish_progress(request->data);
			else
				replsync_publish_progress(request->data);
			break;
		case CORE_PASS_DONE:
			in.at += sizeof(CorePass);
			replsync_publish_pass(request->data, &in);
			break;
		case CORE_COMMAND_DONE:
			replsync_publish_command(request->data);
			break;
		case CORE_QUERY:
			replsync_query(request->data, out);
			break;
		case CORE_SEQUENCE_TAKE_REQUEST:
			replsync_sequence_take_request(out);
			break;
		case CORE_SEQUENCE_ANSWER:
			replsync_sequence_answer(request);
			return false;
		case CORE_SEQUENCE_SUBSCRIPTIONS:
			replsync_sequence_subscriptions(out);
			break;
		case CORE_SEQUENCE_LIST:
			replsync_sequence_list(&in, out);
			break;
		case CORE_SEQUENCE_SET:
			replsync_sequence_set(&in, out);
			break;
		case CORE_SEQUENCE_RECORD:
			replsync_sequence_record(&in);
			break;
		case CORE_SEQUENCE_FINISH:
			replsync_sequence_finish(&in);
			break;
		case CORE_SEQUENCE_MEMBERS:
			replsync_sequence_members(&in);
			break;
		case CORE_SEQUENCE_CYCLE_DONE:
			replsync_sequence_cycle_done(request->data);
			break;
		case CORE_EXIT:
			if (replsync_is_sequence_worker())
				replsync_sequence_worker_stop();
			replsync_shared->copies_settled = !RecoveryInProgress();
			proc_exit(1);
		case CORE_CHECK_WAIT:
			replsync_check_wait(request->id);
			return false;
		case CORE_CHECK_DONE:
			replsync_check_publish(request);
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("core of replsync asks for something unknown (%d)", request->kind)));
	}
	return true;
}

/*
 * The core wants UTF-8. This process has no database, so its messages have the encoding of
 * lc_messages, which cannot be converted from here: what is not UTF-8 becomes ASCII.
 */
static const char *
to_utf8(const char *text)
{
	char *copy;

	if (text == NULL || pg_verify_mbstr(PG_UTF8, text, strlen(text), true))
		return text;
	copy = pstrdup(text);
	for (char *at = copy; *at; at++)
	{
		if (IS_HIGHBIT_SET(*at))
			*at = '?';
	}
	return copy;
}

/* Answer with an error, in the core's encoding */
static void
answer_error(uint64 id, ErrorData *edata)
{
	CoreError error;

	strlcpy(error.sqlstate, unpack_sql_state(edata->sqlerrcode), sizeof(error.sqlstate));
	error.message = edata->message ? to_utf8(edata->message) : "";
	error.detail = to_utf8(edata->detail);
	error.hint = to_utf8(edata->hint);
	replsync_core_answer(id, &error, NULL, 0);
}

/* Release whatever a request that failed still holds */
static void
clean_up(const ErrorData *edata)
{
	replsync_slot_error_cleanup();
	if (replsync_is_sequence_worker())
		replsync_sequence_list_end();

	/*
	 * Replay of the end of logical decoding waits for the owner of a slot, and tells it
	 * once (RECOVERY_CONFLICT_LOGICALSLOT): whichever request that meets, the
	 * reservation has to go.
	 */
	if (edata->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE)
		replsync_reservation_give_up();
	LWLockReleaseAll();
	ConditionVariableCancelSleep();
	AbortCurrentTransaction();
	/* Outside a transaction nobody else closes what was opened. */
	AtEOXact_Files(false);
}

/* End the error that was caught, and what it has left, and return it in this context */
static ErrorData *
take_error(MemoryContext context)
{
	ErrorData *edata;

	MemoryContextSwitchTo(context);
	edata = CopyErrorData();
	FlushErrorState();
	clean_up(edata);
	MemoryContextSwitchTo(context);
	return edata;
}

/*
 * Serve interrupts between requests. A cancel, or replay that wants the reservation, becomes
 * true: the work under way is to end, and this process goes on.
 */
bool
replsync_take_interrupts(void)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool canceled = QueryCancelPending;

	QueryCancelPending = false;
	PG_TRY();
	{
		CHECK_FOR_INTERRUPTS();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		FreeErrorData(take_error(context));
		RESUME_INTERRUPTS();
		canceled = true;
	}
	PG_END_TRY();
	return canceled;
}

/* Carry out one request of the core and answer it */
void
replsync_dispatch(CoreRequest *request)
{
	MemoryContext context = CurrentMemoryContext;
	StringInfoData out;

	initStringInfo(&out);
	PG_TRY();
	{
		if (carry_out(request, &out))
			replsync_core_answer(request->id, NULL, out.data, out.len);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		answer_error(request->id, take_error(context));
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	free(request->data);
	request->data = NULL;
}
