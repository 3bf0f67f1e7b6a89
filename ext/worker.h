/*
 * The background worker.
 */
#ifndef REPLSYNC_WORKER_H
#define REPLSYNC_WORKER_H

#include "core_api.h"

extern void replsync_register_slot_worker(void);
extern bool replsync_is_slot_worker(void);

#endif
