/*
 * What the files of the shim share.
 */
#ifndef REPLSYNC_H
#define REPLSYNC_H

#include "postgres.h"

#include "lib/stringinfo.h"

#include "core_api.h"

/* replsync.c: configuration */
extern bool replsync_sync_slots;
extern bool replsync_sync_sequences;
extern int replsync_connect_timeout;
extern int replsync_remote_timeout;
extern char *replsync_slots;

/* dispatch.c */
extern void replsync_dispatch(CoreRequest *request);
extern bool replsync_take_interrupts(void);

/* nap.c */
extern void replsync_nap_begin(uint64 id, const CoreNap *nap);
extern void replsync_nap_wake(void);
extern long replsync_nap_timeout(void);
extern void replsync_nap_note_reload(void);
extern void replsync_nap_check(bool cancel);

/* funcs.c */
extern void replsync_require_replication(void);

/* query.c */
extern void replsync_query(const char *sql, StringInfo out);

#endif
