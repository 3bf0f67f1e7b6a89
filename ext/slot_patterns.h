/*
 * The value of replsync.slots: which logical slots it names.
 */
#ifndef REPLSYNC_SLOT_PATTERNS_H
#define REPLSYNC_SLOT_PATTERNS_H

#include <stdbool.h>

extern bool replsync_slot_patterns_valid(const char *value, const char **bad, int *bad_length);
extern bool replsync_slot_wanted(const char *value, int major, const char *name, bool failover);

#endif
