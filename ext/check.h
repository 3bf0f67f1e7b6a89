/*
 * failover_check(): what its callers and the slot worker share.
 */
#ifndef REPLSYNC_CHECK_H
#define REPLSYNC_CHECK_H

#include "core_api.h"

extern Size replsync_check_size(void);
extern void replsync_check_init(void);
extern void replsync_check_attach(void);
extern bool replsync_check_requested(void);
extern void replsync_check_refuse(const CoreOutcome *outcome);
extern void replsync_check_wait(uint64 id);
extern void replsync_check_attend(void);
extern void replsync_check_publish(const CoreRequest *request);

#endif
