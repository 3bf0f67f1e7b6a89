/*
 * Loading the Go core into this process, and calling it.
 */
#ifndef REPLSYNC_CORE_H
#define REPLSYNC_CORE_H

#include "core_api.h"

extern void replsync_core_load(const char *library);
extern int replsync_core_wakeup_fd(void);
extern void replsync_core_start(const char *kind, const char *argument);
extern bool replsync_core_next(CoreRequest *request);
extern void replsync_core_answer(uint64 id, const CoreError *error,
								 const void *data, uint64 len);
extern void replsync_core_cancel(void);
extern void replsync_core_release_memory(void);

/* core_memory.c */
extern void replsync_core_keep_small(void);
extern void replsync_core_trim(const void *address);

#endif
