/*
 * Forming the rows of the SQL functions.
 */
#ifndef REPLSYNC_STATUS_H
#define REPLSYNC_STATUS_H

#include "shmem.h"

extern void replsync_require_preload(void);
extern void replsync_set_text(Datum *values, bool *nulls, int column, const char *text);
extern void replsync_set_name(Datum *values, bool *nulls, int column, const char *name);
extern const char *replsync_to_server(const char *text);

#endif
