/*
 * Forming the rows of the SQL functions.
 */
#ifndef REPLSYNC_STATUS_H
#define REPLSYNC_STATUS_H

#include "shmem.h"

extern void replsync_require_preload(void);
extern SlotStatusRow *replsync_copy_rows(int *nrows);
extern void replsync_set_text(Datum *values, bool *nulls, int column, const char *text);
extern Datum replsync_name_datum(const char *name);

#endif
