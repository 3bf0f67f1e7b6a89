/*
 * What kind of WAL record a slot's restart_lsn points to.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogreader.h"
#include "access/xlogutils.h"
#include "storage/standbydefs.h"

#include "slot.h"

/*
 * Read a page of WAL that was received. read_local_xlog_page() (xlogutils.c) knows what was replayed only, and a replay that is
 * paused is not to hold a copy up.
 */
static int
read_received_page(XLogReaderState *reader, XLogRecPtr page, int len, XLogRecPtr target, char *buffer)
{
	TimeLineID tli;
	XLogRecPtr end = replsync_flush_lsn(&tli);
	WALReadError problem;

	if (page + len > end)
		return -1;
	XLogReadDetermineTimeline(reader, page, len, tli);

	/* The rest of the page is zeros or older WAL: nobody looks at it. */
	if (!WALRead(reader, buffer, page, XLOG_BLCKSZ, reader->currTLI, &problem))
		WALReadRaiseError(&problem);
	return (int) Min(end - page, XLOG_BLCKSZ);
}

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
						problem ? problem : "it has not been received")));
	return XLogRecGetRmid(reader) == RM_STANDBY_ID &&
		   (XLogRecGetInfo(reader) & ~XLR_INFO_MASK) == XLOG_RUNNING_XACTS;
}

/*
 * Is the record at lsn a list of running transactions? What else a slot can begin at is
 * the start of a server (xlog_decode(), decode.c). The record has to be received.
 */
bool
replsync_is_running_xacts(XLogRecPtr lsn)
{
	XLogReaderState *reader;
	volatile bool found = false;

	reader = XLogReaderAllocate(wal_segment_size, NULL,
								XL_ROUTINE(.page_read = read_received_page,
										   .segment_open = wal_segment_open,
										   .segment_close = wal_segment_close),
								NULL);
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
