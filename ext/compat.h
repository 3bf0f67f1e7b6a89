/*
 * What differs between the major versions of PostgreSQL and is needed in more than one place.
 */
#ifndef REPLSYNC_COMPAT_H
#define REPLSYNC_COMPAT_H

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 200000
#error "replsync works with PostgreSQL 15 to 19"
#endif

/* 19 has entries for REPACK behind the ordinary ones in the array of slots. */
#if PG_VERSION_NUM >= 190000
#define TOTAL_REPLICATION_SLOTS (max_replication_slots + max_repack_replication_slots)
#else
#define TOTAL_REPLICATION_SLOTS max_replication_slots
#endif

/* A temporary slot with nothing set; later versions have more to say about it. */
#if PG_VERSION_NUM >= 190000
#define COMPAT_CREATE_TEMPORARY_SLOT(name, db_specific) \
	ReplicationSlotCreate(name, db_specific, RS_TEMPORARY, false, false, false, false)
#elif PG_VERSION_NUM >= 170000
#define COMPAT_CREATE_TEMPORARY_SLOT(name, db_specific) \
	ReplicationSlotCreate(name, db_specific, RS_TEMPORARY, false, false, false)
#else
#define COMPAT_CREATE_TEMPORARY_SLOT(name, db_specific) \
	ReplicationSlotCreate(name, db_specific, RS_TEMPORARY, false)
#endif

/* Refuse what is no name of a slot. */
#if PG_VERSION_NUM >= 190000
#define COMPAT_VALIDATE_SLOT_NAME(name) ((void) ReplicationSlotValidateName(name, false, ERROR))
#else
#define COMPAT_VALIDATE_SLOT_NAME(name) ((void) ReplicationSlotValidateName(name, ERROR))
#endif

/* Take a slot that nobody uses, also an invalidated one. */
#if PG_VERSION_NUM >= 180000
#define COMPAT_ACQUIRE_SLOT(name) ReplicationSlotAcquire(name, true, false)
#else
#define COMPAT_ACQUIRE_SLOT(name) ReplicationSlotAcquire(name, true)
#endif

/*
 * Prepare to sleep on a condition variable, also again. Before 16, whoever takes back a sleep from which he was woken wakes
 * the next who sleeps: several who prepare anew each time would never rest. There, it may reset the latch.
 */
#if PG_VERSION_NUM >= 160000
#define COMPAT_PREPARE_AGAIN(cv) ConditionVariablePrepareToSleep(cv)
#else
#define COMPAT_PREPARE_AGAIN(cv) ((void) ConditionVariableTimedSleep(cv, 0, PG_WAIT_EXTENSION))
#endif

/* Who owns a WaitEventSet that lives as long as the process. */
#if PG_VERSION_NUM >= 170000
#define COMPAT_WAIT_SET_OWNER NULL
#else
#define COMPAT_WAIT_SET_OWNER TopMemoryContext
#endif

#endif
