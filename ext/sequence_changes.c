/*
 * What has changed in the catalogs since a worker has read its list of sequences there.
 */
#include "replsync.h"

#include "catalog/pg_class.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "sequence_list.h"

/* Relations that have changed since the catalogs were read; with more of them, all count as changed. */
#define MAX_CHANGED 256

static Oid changed[MAX_CHANGED];
static int nchanged = 0;
static bool catalogs_changed = false; /* in another way */

/* Remember that a relation has changed */
static void
note_change(Datum arg, Oid relid)
{
	if (replsync_list.context == NULL)
		return;
	if (!OidIsValid(relid) || nchanged >= MAX_CHANGED)
		nchanged = MAX_CHANGED + 1;
	else
		changed[nchanged++] = relid;
}

/* Remember that a schema, a definition or what core synchronizes has changed */
static void
note_catalog_change(Datum arg, int cacheid, uint32 hashvalue)
{
	catalogs_changed = true;
}

/* Hear of changes from now on */
void
replsync_changes_watch(void)
{
	static bool registered = false;

	if (registered)
		return;
	registered = true;
	CacheRegisterRelcacheCallback(note_change, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, note_catalog_change, (Datum) 0);
	CacheRegisterSyscacheCallback(SEQRELID, note_catalog_change, (Datum) 0);
	CacheRegisterSyscacheCallback(SUBSCRIPTIONRELMAP, note_catalog_change, (Datum) 0);
}

/* The list has all that has changed so far */
void
replsync_changes_seen(void)
{
	nchanged = 0;
	catalogs_changed = false;
}

/* Has a relation changed since the catalogs were read? */
bool
replsync_changes_have(Oid relid)
{
	if (nchanged > MAX_CHANGED)
		return true;
	for (int i = 0; i < nchanged; i++)
	{
		if (changed[i] == relid)
			return true;
	}
	return false;
}

/* Does a relation that is no sequence have a name that is listed, or may it have had one? */
static bool
concerns_a_name(Oid relid)
{
	char *name = get_rel_name(relid);
	char *schema = name ? get_namespace_name(get_rel_namespace(relid)) : NULL;
	int at;

	if (replsync_list.any_taken)
		return true;
	if (schema == NULL)
		return false;
	at = replsync_list_position(schema, name);
	return at < replsync_list.count && replsync_list_compare(&replsync_list.sequences[at], schema, name) == 0;
}

/*
 * Have the changes since the catalogs were read nothing to do with the list? A sequence that is renamed, moved or rewritten is a
 * relation that has changed; one that is made, dropped or altered shows in the catalog of definitions too. Others may have a name
 * that is listed.
 */
bool
replsync_changes_are_of_others(void)
{
	/* Looking one up may bring word of more. */
	for (int i = 0; i < nchanged && nchanged <= MAX_CHANGED; i++)
	{
		if (get_rel_relkind(changed[i]) == RELKIND_SEQUENCE || concerns_a_name(changed[i]))
			return false;
	}
	return !catalogs_changed && nchanged <= MAX_CHANGED;
}

/* Have so many changed that all count as changed? */
bool
replsync_changes_are_many(void)
{
	return nchanged > MAX_CHANGED;
}
