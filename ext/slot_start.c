/*
 * What kind of WAL record a slot's restart_lsn points to.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogreader.h"
#include "access/xlogutils.h"
#include "storage/standbydefs.h"

#include "slot.h"

/* Read the record at lsn and tell whether it is a list of running transactions */
static bool
read_kind(XLogReaderState *reader, XLogRecPtr lsn)
{
	char *problem = NULL;

	XLogBeginRead(reader, lsn);
	if (XLogReadRecord(reader, &problem) == NULL)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read WAL at %X/%X: %s", LSN_FORMAT_ARGS(lsn),
						problem ? problem : "it is not replayed yet")));
	return XLogRecGetRmid(reader) == RM_STANDBY_ID &&
		   (XLogRecGetInfo(reader) & ~XLR_INFO_MASK) == XLOG_RUNNING_XACTS;
}

/*
 * Is the record at lsn a list of running transactions? What else a slot can begin at is
 * the start of a server (xlog_decode(), decode.c). The record has to be replayed.
 */
bool
replsync_is_running_xacts(XLogRecPtr lsn)
{
	ReadLocalXLogPageNoWaitPrivate at_end = {0};
	XLogReaderState *reader;
	volatile bool found = false;

	reader = XLogReaderAllocate(wal_segment_size, NULL,
								XL_ROUTINE(.page_read = read_local_xlog_page_no_wait,
										   .segment_open = wal_segment_open,
										   .segment_close = wal_segment_close),
								&at_end);
	if (reader == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));

	/* The file of the segment is closed by nobody else, also after an error. */
	PG_TRY();
	{
		found = read_kind(reader, lsn);
	}
	PG_FINALLY();
	{
		XLogReaderFree(reader);
	}
	PG_END_TRY();
	return found;
}
