/*
 * SQL of the core, through SPI in a transaction of its own.
 */
#include "replsync.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "pgstat.h"
#include "utils/snapmgr.h"

/* Append one value: int32 length and the text, or -1 */
static void
append_value(StringInfo out, const char *value)
{
	int32 length = value ? (int32) strlen(value) : -1;

	appendBinaryStringInfo(out, (char *) &length, sizeof(length));
	if (value)
		appendBinaryStringInfo(out, value, length);
}

/*
 * Run a statement and append its result to out: int32 number of columns, then the
 * values, row by row. The result is in the database's encoding.
 */
void
replsync_query(const char *sql, StringInfo out)
{
	int32 columns = 0;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, sql);
	if (SPI_execute(sql, false, 0) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not run a statement of the core: %s", SPI_result_code_string(SPI_result))));

	if (SPI_tuptable != NULL)
		columns = SPI_tuptable->tupdesc->natts;
	appendBinaryStringInfo(out, (char *) &columns, sizeof(columns));
	for (uint64 row = 0; columns > 0 && row < SPI_processed; row++)
	{
		for (int column = 1; column <= columns; column++)
			append_value(out, SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column));
	}
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_activity(STATE_IDLE, NULL);
}
