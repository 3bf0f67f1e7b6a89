/*
 * Statements on the extension's own tables, with the rights of their owner: whoever may call a function
 * need not have any on the tables.
 */
#include "replsync.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "sequence.h"

static struct
{
	Oid user;
	int security;
	int nest_level;
	bool pushed;
} saved;

/* The owner of the tables */
static Oid
table_owner(void)
{
	Oid schema = get_namespace_oid("replsync", true);
	Oid table = OidIsValid(schema) ? get_relname_relid("sequence_selection", schema) : InvalidOid;
	HeapTuple tuple = OidIsValid(table) ? SearchSysCache1(RELOID, ObjectIdGetDatum(table)) : NULL;
	Oid owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("tables of replsync are not in this database"),
				 errhint("CREATE EXTENSION replsync, or ALTER EXTENSION replsync UPDATE.")));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* Begin; whatever ends in an error ends with the transaction */
void
replsync_spi_begin(void)
{
	Oid owner = table_owner();

	GetUserIdAndSecContext(&saved.user, &saved.security);
	SetUserIdAndSecContext(owner, saved.security | SECURITY_LOCAL_USERID_CHANGE);
	saved.nest_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	saved.pushed = !ActiveSnapshotSet();
	if (saved.pushed)
		PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
}

/* End */
void
replsync_spi_end(void)
{
	SPI_finish();
	if (saved.pushed)
		PopActiveSnapshot();
	AtEOXact_GUC(true, saved.nest_level);
	SetUserIdAndSecContext(saved.user, saved.security);
}

/* Run a statement; returns the number of rows */
uint64
replsync_spi(const char *sql, int nargs, const Oid *types, const Datum *values)
{
	int result = SPI_execute_with_args(sql, nargs, (Oid *) types, (Datum *) values, NULL, false, 0);

	if (result < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not run a statement of replsync: %s", SPI_result_code_string(result))));
	return SPI_processed;
}

/* A value of the result */
Datum
replsync_spi_value(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}
