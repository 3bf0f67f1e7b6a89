/*
 * What a sequence worker keeps in memory for sequence_status: it changes with every cycle and would cost a row version
 * each time in a table. It lies in a dynamic shared memory area that stays until the server ends.
 */
#include "replsync.h"

#include "catalog/pg_class.h"
#include "fmgr.h"
#include "funcapi.h"
#include "access/htup_details.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "sequence.h"
#include "status.h"

PG_FUNCTION_INFO_V1(replsync_sequence_live);
PG_FUNCTION_INFO_V1(replsync_sequence_local_value);

typedef struct LiveKey
{
	Oid subscription;
	Oid relid; /* InvalidOid: the watermark of the subscription */
} LiveKey;

typedef struct LiveEntry
{
	LiveKey key;
	bool known;
	bool is_called;
	uint32 timeline;
	int64 last_value; /* of a watermark: the LSN */
	int64 errors;	  /* of a watermark: the system identifier */
	TimestampTz at;
} LiveEntry;

static dsa_area *area = NULL;
static dshash_table *table = NULL;

/* The parameters of the table */
static const dshash_parameters *
parameters(void)
{
	static dshash_parameters p = {
		.key_size = sizeof(LiveKey),
		.entry_size = sizeof(LiveEntry),
		.compare_function = dshash_memcmp,
		.hash_function = dshash_memhash,
#if PG_VERSION_NUM >= 170000
		.copy_function = dshash_memcpy,
#endif
	};

	p.tranche_id = replsync_sequences->live_tranche;
#if PG_VERSION_NUM < 190000
	LWLockRegisterTranche(p.tranche_id, "replsync_sequences");
#endif
	return &p;
}

/* Find the entry of this database; called with the lock held */
static SequenceDatabase *
my_entry(void)
{
	SequenceDatabase *entry = replsync_find_database(MyDatabaseId);

	return entry;
}

/* Attach the worker to the table of its place, or make one */
static void
attach(void)
{
	MemoryContext old;
	dsa_handle handle;
	dshash_table_handle table_handle;
	SequenceDatabase *entry;

	if (table != NULL)
		return;
	LWLockAcquire(replsync_sequences->lock, LW_SHARED);
	entry = my_entry();
	handle = entry->area;
	table_handle = entry->table;
	LWLockRelease(replsync_sequences->lock);

	old = MemoryContextSwitchTo(TopMemoryContext);
	if (handle != 0)
	{
		area = dsa_attach(handle);
		dsa_pin_mapping(area);
		table = dshash_attach(area, parameters(), table_handle, NULL);
	}
	else
	{
		area = dsa_create(parameters()->tranche_id);
		dsa_pin(area);
		dsa_pin_mapping(area);
		table = dshash_create(area, parameters(), NULL);
		LWLockAcquire(replsync_sequences->lock, LW_EXCLUSIVE);
		entry = my_entry();
		entry->area = dsa_get_handle(area);
		entry->table = dshash_get_hash_table_handle(table);
		LWLockRelease(replsync_sequences->lock);
	}
	MemoryContextSwitchTo(old);
}

/* Keep what a cycle found of a sequence */
void
replsync_live_record(Oid subscription, Oid relid, const SequencePosition *publisher, bool failed)
{
	LiveKey key = {subscription, relid};
	LiveEntry *entry;
	bool found;

	attach();
	entry = dshash_find_or_insert(table, &key, &found);
	if (!found)
		memset((char *) entry + sizeof(LiveKey), 0, sizeof(LiveEntry) - sizeof(LiveKey));
	if (publisher)
	{
		entry->known = true;
		entry->last_value = publisher->last_value;
		entry->is_called = publisher->is_called;
	}
	if (failed)
		entry->errors++;
	else
		entry->at = GetCurrentTimestamp();
	dshash_release_lock(table, entry);
}

/* Keep how far a cycle that reached all sequences of a subscription proves */
void
replsync_live_watermark(Oid subscription, uint64 lsn, uint64 system_identifier, uint32 timeline)
{
	LiveKey key = {subscription, InvalidOid};
	LiveEntry *entry;
	bool found;

	attach();
	entry = dshash_find_or_insert(table, &key, &found);
	entry->known = true;
	entry->is_called = false;
	entry->last_value = (int64) lsn;
	entry->errors = (int64) system_identifier;
	entry->timeline = timeline;
	entry->at = GetCurrentTimestamp();
	dshash_release_lock(table, entry);
}

/* Forget a subscription */
void
replsync_live_forget(Oid subscription)
{
	dshash_seq_status status;
	LiveEntry *entry;

	attach();
	dshash_seq_init(&status, table, true);
	while ((entry = dshash_seq_next(&status)) != NULL)
	{
		if (entry->key.subscription == subscription)
			dshash_delete_current(&status);
	}
	dshash_seq_term(&status);
}

/* Attach this backend to the table of its database, if there is one */
static bool
attach_backend(dsa_area **backend_area, dshash_table **backend_table)
{
	SequenceDatabase *entry;
	dsa_handle handle = 0;
	dshash_table_handle table_handle = 0;

	LWLockAcquire(replsync_sequences->lock, LW_SHARED);
	entry = my_entry();
	if (entry != NULL)
	{
		handle = entry->area;
		table_handle = entry->table;
	}
	LWLockRelease(replsync_sequences->lock);
	if (handle == 0)
		return false;
	*backend_area = dsa_attach(handle);
	*backend_table = dshash_attach(*backend_area, parameters(), table_handle, NULL);
	return true;
}

/* Forget the errors that were counted */
void
replsync_live_forget_errors(void)
{
	dsa_area *backend_area;
	dshash_table *backend_table;
	dshash_seq_status status;
	LiveEntry *entry;

	if (!attach_backend(&backend_area, &backend_table))
		return;
	dshash_seq_init(&status, backend_table, true);
	while ((entry = dshash_seq_next(&status)) != NULL)
	{
		if (OidIsValid(entry->key.relid))
			entry->errors = 0;
	}
	dshash_seq_term(&status);
	dshash_detach(backend_table);
	dsa_detach(backend_area);
}

/* Form the row of an entry */
static void
put_row(ReturnSetInfo *rsinfo, const LiveEntry *entry)
{
	bool watermark = !OidIsValid(entry->key.relid);
	Datum values[9] = {0};
	bool nulls[9] = {0};

	values[0] = ObjectIdGetDatum(entry->key.subscription);
	values[1] = ObjectIdGetDatum(entry->key.relid);
	nulls[1] = watermark;
	nulls[2] = nulls[3] = watermark || !entry->known;
	values[2] = Int64GetDatum(entry->last_value);
	values[3] = BoolGetDatum(entry->is_called);
	values[4] = TimestampTzGetDatum(entry->at);
	nulls[4] = entry->at == 0;
	values[5] = Int64GetDatum(entry->errors);
	nulls[5] = watermark;
	nulls[6] = nulls[7] = nulls[8] = !watermark;
	values[6] = LSNGetDatum((XLogRecPtr) entry->last_value);
	values[7] = Int64GetDatum(entry->errors);
	values[8] = Int32GetDatum((int32) entry->timeline);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* sequence_live(): what is kept in memory for this database */
Datum
replsync_sequence_live(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	dsa_area *backend_area;
	dshash_table *backend_table;
	dshash_seq_status status;
	LiveEntry *entry;

	replsync_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	if (!attach_backend(&backend_area, &backend_table))
		return (Datum) 0;
	dshash_seq_init(&status, backend_table, false);
	while ((entry = dshash_seq_next(&status)) != NULL)
		put_row(rsinfo, entry);
	dshash_seq_term(&status);
	dshash_detach(backend_table);
	dsa_detach(backend_area);
	return (Datum) 0;
}

/* sequence_local_value(oid): where a sequence stands here; NULL where that cannot be told at once */
Datum
replsync_sequence_local_value(PG_FUNCTION_ARGS)
{
	Oid relid = PG_GETARG_OID(0);
	HeapTuple tuple;
	SequencePosition position = {0};
	bool known = false;

	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		PG_RETURN_NULL();
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_class class = (Form_pg_class) GETSTRUCT(tuple);
		SequenceFile file;

		known = class->relkind == RELKIND_SEQUENCE && class->relpersistence != RELPERSISTENCE_TEMP &&
				(class->relpersistence == RELPERSISTENCE_PERMANENT || !RecoveryInProgress());
		if (known)
		{
			replsync_sequence_file(&file, class->reltablespace, class->relfilenode, class->relpersistence);
			position = replsync_sequence_read(&file, NULL);
		}
		ReleaseSysCache(tuple);
	}
	UnlockRelationOid(relid, AccessShareLock);
	if (!known)
		PG_RETURN_NULL();
	PG_RETURN_INT64(position.last_value);
}
