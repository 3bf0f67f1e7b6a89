/*
 * Holding logical decoding back until physical standbys have confirmed (15 and 16; core does it from 17 on).
 *
 *	hold_back.c			  which decoding waits, and where
 *	hold_back_list.c	  the value of replsync.synchronized_standby_slots
 *	hold_back_standbys.c  what the standbys have confirmed, and what is wrong with their slots
 *	hold_back_walsender.c how a walsender waits, and how it is woken
 */
#ifndef REPLSYNC_HOLD_BACK_H
#define REPLSYNC_HOLD_BACK_H

#include "access/xlogdefs.h"
#include "utils/guc.h"

#define HOLD_BACK_PARAMETER "replsync.synchronized_standby_slots"

/* What may be wrong with a slot of the list */
typedef enum StandbyTrouble
{
	STANDBY_OK,
	STANDBY_INACTIVE,
	STANDBY_MISSING,
	STANDBY_LOGICAL,
	STANDBY_INVALIDATED
} StandbyTrouble;

/* A slot of the list, as it was last looked at */
typedef struct StandbySlot
{
	char name[NAMEDATALEN];
	XLogRecPtr confirmed;
	StandbyTrouble trouble;
	StandbyTrouble told; /* to the client of this backend */
} StandbySlot;

/* A parsed replsync.synchronized_standby_slots */
typedef struct StandbyList
{
	uint32 hash;  /* of the value */
	int required; /* how many of the slots must confirm */
	int count;
	StandbySlot slots[FLEXIBLE_ARRAY_MEMBER];
} StandbyList;

/* hold_back_list.c */
extern bool replsync_check_standby_list(char **newval, void **extra, GucSource source);

#if PG_VERSION_NUM < 170000
#include "replication/logical.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"

/* hold_back.c; the list is NULL where nothing is held back */
extern StandbyList *replsync_standby_list;
extern void replsync_assign_standby_list(const char *newval, void *extra);
extern void replsync_assign_slots(const char *newval, void *extra);
extern void replsync_hold_back_init(void);
extern void replsync_intercept_decoding(void);
extern bool replsync_slot_is_held(void);
extern bool replsync_must_wait(XLogRecPtr position);

/* hold_back_standbys.c */
extern ConditionVariable *replsync_standby_moved;
extern Size replsync_hold_back_shmem_size(void);
extern void replsync_hold_back_shmem_startup(LWLock *lock);
extern void replsync_forget_confirmed(void);
extern XLogRecPtr replsync_known_confirmed(void);
extern XLogRecPtr replsync_confirmed(XLogRecPtr needed);
extern bool replsync_may_confirm(XLogRecPtr needed);

/* hold_back_walsender.c */
extern void replsync_attach_walsender(void);
extern void replsync_detach_walsender(void);
extern bool replsync_walsender_wait(LogicalDecodingContext *ctx, XLogRecPtr position);
#endif

#endif
