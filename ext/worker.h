/*
 * The background worker.
 */
#ifndef REPLSYNC_WORKER_H
#define REPLSYNC_WORKER_H

#include "core_api.h"

/* How often a waiting worker looks whether the server was promoted, which no latch tells. */
#define PROMOTION_POLL_MS 1000

extern void replsync_register_slot_worker(void);
extern bool replsync_is_slot_worker(void);
extern bool replsync_is_sequence_worker(void);

#endif
