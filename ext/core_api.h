/*
 * The boundary between the shim (C) and the core (Go): plain data, no PostgreSQL type.
 *
 * The core exports one symbol, replsync_core, that returns a CoreApi. Everything
 * the core wants of this server is a CoreRequest that the main thread takes from
 * the core's queue, carries out and answers. cgo reads this header too.
 *
 * A change of anything here needs another CORE_ABI: after an upgrade of the files
 * without a restart, the shim in memory meets the new core.
 */
#ifndef REPLSYNC_CORE_API_H
#define REPLSYNC_CORE_API_H

#include <stddef.h>
#include <stdint.h>

#define CORE_ABI		4
#define CORE_NAME_LEN	64 /* NAMEDATALEN */
#define CORE_MARKER_LEN 256

/* The marker of a slot that was made while this server was a primary. */
#define CORE_MARKER_ORIGINAL "v=1 promoted=1 original=1"
#define CORE_TEXT_LEN		 1024

/* Slots that are saved at once: their locks are held, and their files open, all together. */
#define CORE_SAVE_MAX 16

/* What the core can ask for; the layout of data in the request and in the answer. */
typedef enum CoreRequestKind
{
	CORE_LOG = 1,		/* CoreLog -> nothing */
	CORE_NAP,			/* CoreNap -> CoreWakeup */
	CORE_TRIM,			/* nothing -> nothing: give back memory that is not in use */
	CORE_WAKE,			/* nothing -> nothing: end the nap under way, or the next one */
	CORE_SETTINGS,		/* name\0name\0... -> value\0value\0... (unknown: empty) */
	CORE_ENVIRONMENT,	/* nothing -> NAME=value\0... */
	CORE_RECOVERY,		/* nothing -> CoreRecovery */
	CORE_SLOT_LIST,		/* nothing -> CoreSlot[] */
	CORE_SLOT_RESERVE,	/* CoreSlot: restart_lsn, 0 releases; catalog_xmin -> nothing */
	CORE_SLOT_CREATE,	/* CoreSlot -> nothing: CORE_SLOT_SYNC is to follow */
	CORE_SLOT_SYNC,		/* nothing -> nothing: what was created is on disk */
	CORE_SLOT_UPDATE,	/* CoreSlot -> nothing */
	CORE_SLOT_DROP,		/* CoreSlot: name, CORE_SLOT_PROMOTED -> nothing */
	CORE_SLOT_MOVE,		/* CoreSlot[] -> uint8_t[]: CoreMove of each */
	CORE_SLOT_SAVE,		/* CoreSlot[], at most CORE_SAVE_MAX -> uint8_t[]: what was moved is on disk, or ask for it alone */
	CORE_WAL_AVAILABLE, /* uint64_t lsn -> uint8_t */
	CORE_WAL_RUNNING,	/* uint64_t lsn -> uint8_t: its record lists running transactions */
	CORE_FEEDBACK,		/* nothing -> nothing: let the walreceiver send feedback now */
	CORE_PROGRESS,		/* CoreProgress -> nothing */
	CORE_PASS_DONE,		/* CorePass, all names, then of each what get_status() of shmem.c takes -> nothing */
	CORE_COMMAND_DONE,	/* CoreCommandResult -> nothing */
	CORE_QUERY,			/* sql\0 -> rows, see query.c */
	CORE_EXIT,			/* nothing, never answered: the process ends and is started anew */
	CORE_CHECK_WAIT,	/* nothing -> nothing, when somebody calls failover_check() */
	CORE_CHECK_DONE,	/* for each row: ok ("t", "f", "")\0 check_name\0 object\0 detail\0 hint\0 -> nothing */

	/* a sequence worker's; wire.h says how these are written where no struct is named */
	CORE_SEQUENCE_TAKE_REQUEST,	 /* nothing -> a request, or nothing */
	CORE_SEQUENCE_ANSWER,		 /* uint64_t id, what the caller is to get -> uint8_t: the caller is there */
	CORE_SEQUENCE_SUBSCRIPTIONS, /* nothing -> subscriptions */
	CORE_SEQUENCE_LIST,			 /* subscription, name, limit -> sequences */
	CORE_SEQUENCE_SET,			 /* subscription, sets -> results */
	CORE_SEQUENCE_RECORD,		 /* subscription, records -> nothing */
	CORE_SEQUENCE_FINISH,		 /* subscription, end of a cycle over it -> nothing */
	CORE_SEQUENCE_MEMBERS,		 /* subscription, names -> nothing */
	CORE_SEQUENCE_CYCLE_DONE	 /* CoreSequenceCycle -> nothing */
} CoreRequestKind;

typedef struct CoreRequest
{
	uint64_t id;
	int32_t kind;
	int32_t unused;
	void *data; /* malloc'ed by the core, freed by the shim */
	uint64_t len;
} CoreRequest;

/* All texts are UTF-8; detail and hint may be NULL. */
typedef struct CoreError
{
	char sqlstate[6];
	const char *message;
	const char *detail;
	const char *hint;
} CoreError;

typedef enum CoreLogLevel
{
	CORE_LOG_DEBUG = 0,
	CORE_LOG_LOG = 1,
	CORE_LOG_WARNING = 2
} CoreLogLevel;

/* Offsets into text: sqlstate, message, detail, hint, each NUL-terminated, in this order. */
typedef struct CoreLog
{
	int32_t level;
	int32_t unused;
	char text[];
} CoreLog;

typedef struct CoreNap
{
	int64_t timeout_ms; /* < 0: until something happens */
	int32_t state;		/* CoreWorkerState to show meanwhile */
	int32_t unused;
} CoreNap;

typedef enum CoreWorkerState
{
	CORE_STATE_STARTING = 0,
	CORE_STATE_NOT_STANDBY,
	CORE_STATE_OFF,
	CORE_STATE_NAPPING,
	CORE_STATE_RUNNING,
	CORE_STATE_BLOCKED /* a refusal: last_error says which */
} CoreWorkerState;

/* Why a nap ended; bits. */
#define CORE_WAKE_TIMEOUT 1
#define CORE_WAKE_RELOAD  2
#define CORE_WAKE_SYNC	  4 /* somebody called sync_slots() */
#define CORE_WAKE_COMMAND 8 /* command and argument are set */
#define CORE_WAKE_CANCEL  16
#define CORE_WAKE_NEWS	  32 /* the core wants it */

typedef enum CoreCommand
{
	CORE_COMMAND_NONE = 0,
	CORE_COMMAND_DROP_SLOTS /* argument: a pattern */
} CoreCommand;

typedef struct CoreWakeup
{
	int32_t reasons;
	int32_t command;
	char argument[CORE_TEXT_LEN];
} CoreWakeup;

/* How something ended. An empty sqlstate is success; the other texts may be empty too. */
typedef struct CoreOutcome
{
	char sqlstate[8];
	char message[CORE_TEXT_LEN];
	char detail[CORE_TEXT_LEN];
	char hint[CORE_TEXT_LEN];
} CoreOutcome;

typedef struct CoreCommandResult
{
	int64_t value;
	CoreOutcome outcome;
} CoreCommandResult;

typedef struct CoreRecovery
{
	uint64_t system_identifier;
	uint64_t replay_lsn;
	uint64_t flush_lsn; /* received or replayed, same timeline */
	uint64_t wal_segment_size;
	int64_t reload_time; /* microseconds since 1970, when the configuration was read */
	uint32_t timeline;
	uint32_t next_xid;			/* replayed */
	int32_t walreceiver_pid;	/* 0: none */
	int32_t server_version_num; /* of the running server */
	uint8_t in_recovery;
	uint8_t promote_triggered;
	uint8_t logical_decoding; /* could a logical slot work here */
	uint8_t unused;
	uint32_t feedback_lapses; /* how often hot standby feedback was off since a worker before this one was last told */
} CoreRecovery;

/* CoreSlot.flags */
#define CORE_SLOT_LOGICAL	  1
#define CORE_SLOT_TEMPORARY	  2
#define CORE_SLOT_TWO_PHASE	  4
#define CORE_SLOT_FAILOVER	  8
#define CORE_SLOT_SYNCED	  16
#define CORE_SLOT_MARKED	  32 /* has replsync's marker: a copy of ours */
#define CORE_SLOT_INVALIDATED 64
#define CORE_SLOT_PROMOTED	  128 /* to be dropped although this server is no standby any more */
#define CORE_SLOT_UNSAVED	  256 /* listed: disk is behind; update: write it in any case; save: hold nothing any more */

/*
 * A slot as listed, or what a slot is to become: create and update set every
 * field but active_pid, except that a confirmed_flush_lsn never goes back.
 */
typedef struct CoreSlot
{
	char name[CORE_NAME_LEN];
	char plugin[CORE_NAME_LEN];
	char marker[CORE_MARKER_LEN];	  /* opaque to the shim, kept in the slot's directory */
	char invalidation[CORE_NAME_LEN]; /* core's word for the cause, empty if none */
	uint64_t restart_lsn;
	uint64_t confirmed_flush_lsn;
	uint64_t two_phase_at;
	uint32_t catalog_xmin;
	uint32_t database; /* oid */
	int32_t active_pid;
	int32_t flags;
	int32_t index; /* where in shared memory it was found: a hint */
	int32_t unused;
} CoreSlot;

/* What became of a slot that was to move. */
typedef enum CoreMove
{
	CORE_MOVE_REFUSED = 0, /* nothing: CORE_SLOT_UPDATE does it, or says why not */
	CORE_MOVE_CONFIRMED,   /* confirmed_flush_lsn alone */
	CORE_MOVE_ALL		   /* all of it, in memory: CORE_SLOT_SAVE is to follow */
} CoreMove;

typedef struct CoreProgress
{
	char phase[CORE_NAME_LEN];
	int64_t done;
	int64_t total;
} CoreProgress;

/* What becomes of the rows that are shown. */
typedef enum CoreRows
{
	CORE_ROWS_STAY = 0, /* the pass failed */
	CORE_ROWS_REPLACED,
	CORE_ROWS_CONFIRMED /* they stay, but for last_sync_at; none are sent */
} CoreRows;

typedef struct CorePass
{
	int64_t duration_us;
	int64_t nrows;
	int32_t rows;		  /* CoreRows */
	int32_t state;		  /* CoreWorkerState */
	int64_t last_sync_at; /* with CORE_ROWS_CONFIRMED, of all rows */
	CoreOutcome outcome;
} CorePass;

/* The end of a cycle over all subscriptions. */
typedef struct CoreSequenceCycle
{
	int64_t duration_us;
	int32_t state; /* CoreWorkerState */
	int32_t unused;
	CoreOutcome outcome;
} CoreSequenceCycle;

/* What a SQL function asks of a sequence worker. */
typedef enum CoreSequenceRequestKind
{
	CORE_SYNC_SEQUENCES = 1,
	CORE_SEQUENCE_DRIFT,
	CORE_SELECT_SEQUENCES,
	CORE_CHECK_PUBLISHER
} CoreSequenceRequestKind;

/* What the shim calls. Every call is short and is made with all signals blocked. */
typedef struct CoreApi
{
	int32_t abi;
	int32_t unused;
	const char *version;

	/*
	 * Start the core's work of that kind ("slots"); the core writes 8 bytes to
	 * wakeup_fd (an eventfd or a pipe) whenever it has put a request into the queue.
	 * Returns 0, or -1 for an unknown kind.
	 */
	int (*start)(const char *kind, const char *argument, int wakeup_fd, int64_t memory_limit);

	/* Take the next request; 0 if there is none. */
	int (*next)(CoreRequest *request);

	/* Answer a request: an error, or data (may be NULL). Nothing is kept. */
	void (*answer)(uint64_t id, const CoreError *error, const void *data, uint64_t len);

	/* Give up what is under way at the remote server. */
	void (*cancel)(void);
} CoreApi;

/* The one symbol of replsync_core.so. */
typedef const CoreApi *(*CoreEntry)(void);
#define CORE_ENTRY_NAME "replsync_core"

#endif
