/*
 * Which sequences are under care: what the publisher was found to have.
 */
#include "replsync.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "sequence.h"

/*
 * Make these names the members of a subscription. With "all" only those count that are here too: the
 * others are nobody's loss. Returns how many there are. Between replsync_spi_begin() and replsync_spi_end().
 */
int64
replsync_replace_members(Oid subscription, Datum schemas, Datum names)
{
	static const Oid types[] = {OIDOID, TEXTARRAYOID, TEXTARRAYOID};
	Datum values[] = {ObjectIdGetDatum(subscription), schemas, names};
	bool isnull;

	(void) replsync_spi("DELETE FROM replsync.sequence_member m WHERE m.subscription = $1 AND NOT EXISTS"
						" (SELECT FROM unnest($2, $3) AS u(s, n)"
						" WHERE u.s = m.schema_name AND u.n = m.sequence_name)",
						3, types, values);
	(void) replsync_spi("INSERT INTO replsync.sequence_member (subscription, schema_name, sequence_name, generation)"
						" SELECT $1, u.s, u.n, r.requested_generation FROM replsync.sequence_selection r,"
						" unnest($2, $3) AS u(s, n)"
						" WHERE r.subscription = $1 AND (r.selection <> 'all' OR EXISTS"
						" (SELECT FROM pg_catalog.pg_namespace ns"
						" JOIN pg_catalog.pg_class c ON c.relnamespace = ns.oid"
						" WHERE ns.nspname = u.s AND c.relname = u.n AND c.relkind = 'S' AND c.relpersistence = 'p'))"
						" ORDER BY u.s, u.n ON CONFLICT DO NOTHING",
						3, types, values);
	(void) replsync_spi("DELETE FROM replsync.sequence_problem p WHERE p.subscription = $1 AND NOT EXISTS"
						" (SELECT FROM replsync.sequence_member m WHERE m.subscription = $1"
						" AND m.schema_name = p.schema_name AND m.sequence_name = p.sequence_name)",
						1, types, values);
	(void) replsync_spi("SELECT count(*) FROM replsync.sequence_member WHERE subscription = $1", 1, types, values);
	return DatumGetInt64(replsync_spi_value(0, 1, &isnull));
}

/* Add a name to the two arrays of a list */
void
replsync_add_name(SequenceNames *list, const char *schema, const char *name)
{
	list->schemas = accumArrayResult(list->schemas, CStringGetTextDatum(schema), false, TEXTOID, list->context);
	list->names = accumArrayResult(list->names, CStringGetTextDatum(name), false, TEXTOID, list->context);
}

/* Finish one of the arrays of a list */
Datum
replsync_finish_names(SequenceNames *list, ArrayBuildState *state)
{
	return state ? makeArrayResult(state, list->context) : PointerGetDatum(construct_empty_array(TEXTOID));
}

/* Serve CORE_SEQUENCE_MEMBERS: subscription, names */
void
replsync_sequence_members(WireReader *in)
{
	MemoryContext context = CurrentMemoryContext;
	SequenceNames list = {.context = context};
	Oid subscription = (Oid) wire_get_int32(in);
	int count = wire_get_int32(in);

	StartTransactionCommand();
	MemoryContextSwitchTo(context);
	for (int i = 0; i < count; i++)
	{
		bool named = true;
		char *schema = wire_get_name(in, &named);
		char *name = wire_get_name(in, &named);

		if (named)
			replsync_add_name(&list, schema, name);
	}
	replsync_spi_begin();
	(void) replsync_replace_members(subscription, replsync_finish_names(&list, list.schemas),
									replsync_finish_names(&list, list.names));
	replsync_spi_end();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	/* Nothing else tells of members that come without a change of the rules. */
	replsync_sequence_list_end();
}
