/*
 * The value of replsync.synchronized_standby_slots: "a, b", of which all must confirm, or "ANY n (a, b)".
 */
#include "replsync.h"

#include <ctype.h>

#include "common/hashfn.h"

#include "hold_back.h"

#if PG_VERSION_NUM >= 170000

/* Check replsync.synchronized_standby_slots: core has a parameter for it */
bool
replsync_check_standby_list(char **newval, void **extra, GucSource source)
{
	if (strspn(*newval, " \t\r\n") == strlen(*newval))
		return true;
	GUC_check_errdetail("From version 17 on, the server itself holds logical replication back.");
	GUC_check_errhint("Set \"synchronized_standby_slots\" instead, and leave this parameter empty.");
	return false;
}

#else

/* Space that goes with the value of a parameter */
#if PG_VERSION_NUM >= 160000
#define allocate_extra(size) guc_malloc(LOG, size)
#define free_extra(extra)	 guc_free(extra)
#else
#define allocate_extra(size) malloc(size)
#define free_extra(extra)	 free(extra)
#endif

#define LIST_HINT "Give a comma-separated list of physical replication slots, of which all must confirm, or \"ANY n (list)\"."

/* Skip spaces */
static const char *
skip(const char *at)
{
	while (isspace((unsigned char) *at))
		at++;
	return at;
}

/*
 * Read "ANY n (" if the value begins so. Returns where the list begins and stores n, which is 0
 * for a value without it; NULL where the value cannot be read.
 */
static const char *
read_quorum(const char *value, long *quorum)
{
	const char *at = skip(value);
	char *end;

	*quorum = 0;
	/* "any" alone may be a slot. */
	if (pg_strncasecmp(at, "any", 3) != 0 || !isspace((unsigned char) at[3]))
		return at;
	at = skip(at + 3);
	if (*at == ',' || *at == '\0')
		return value;
	errno = 0;
	*quorum = strtol(at, &end, 10);
	if (end == at || errno != 0)
	{
		GUC_check_errdetail("A number must follow \"ANY\".");
		GUC_check_errhint(LIST_HINT);
		return NULL;
	}
	if (*quorum < 1)
	{
		GUC_check_errdetail("At least one of the slots must confirm, not %ld.", *quorum);
		GUC_check_errhint("Leave the parameter empty to hold nothing back.");
		return NULL;
	}
	at = skip(end);
	if (*at != '(')
	{
		GUC_check_errdetail("A list in parentheses must follow \"ANY %ld\".", *quorum);
		GUC_check_errhint(LIST_HINT);
		return NULL;
	}
	return at + 1;
}

/* Add a name to the list */
static bool
add_slot(StandbyList *list, const char *name, int length)
{
	StandbySlot *slot = &list->slots[list->count];

	/* ReplicationSlotValidateName allows no other names. */
	if (length < 1 || length >= NAMEDATALEN ||
		(int) strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") < length)
	{
		GUC_check_errdetail("\"%.*s\" is not the name of a replication slot.", length, name);
		GUC_check_errhint(LIST_HINT);
		return false;
	}
	memcpy(slot->name, name, length);
	for (int i = 0; i < list->count; i++)
	{
		if (strcmp(list->slots[i].name, slot->name) == 0)
		{
			GUC_check_errdetail("Replication slot \"%s\" is named twice.", slot->name);
			GUC_check_errhint("Name each slot once.");
			return false;
		}
	}
	list->count++;
	return true;
}

/* Read the names up to the end of the value, or to the parenthesis */
static bool
read_names(StandbyList *list, const char *at, bool parenthesis)
{
	const char *delimiters = parenthesis ? ",)" : ",";
	int length;

	for (;;)
	{
		at = skip(at);
		length = (int) strcspn(at, delimiters);
		for (; length > 0 && isspace((unsigned char) at[length - 1]);)
			length--;
		/* As a list of identifiers, it may be written with quotes. */
		if (length > 2 && at[0] == '"' && at[length - 1] == '"')
		{
			if (!add_slot(list, at + 1, length - 2))
				return false;
		}
		else if (!add_slot(list, at, length))
			return false;
		at += strcspn(at, delimiters);
		if (*at != ',')
			break;
		at++;
	}
	if (parenthesis && (*at != ')' || *skip(at + 1) != '\0'))
	{
		GUC_check_errdetail("The list must end with a parenthesis, and nothing after it.");
		GUC_check_errhint(LIST_HINT);
		return false;
	}
	return true;
}

/* Fill the list from the value */
static bool
read_list(StandbyList *list, const char *value)
{
	long quorum;
	const char *names = read_quorum(value, &quorum);

	if (names == NULL || !read_names(list, names, quorum > 0))
		return false;
	if (quorum > list->count)
	{
		GUC_check_errdetail("%ld slots cannot confirm, as the list has %d.", quorum, list->count);
		GUC_check_errhint("Give a number from 1 to %d, or more slots.", list->count);
		return false;
	}
	list->hash = hash_bytes((const unsigned char *) value, (int) strlen(value));
	list->required = quorum > 0 ? (int) quorum : list->count;
	return true;
}

/* Check replsync.synchronized_standby_slots */
bool
replsync_check_standby_list(char **newval, void **extra, GucSource source)
{
	StandbyList *list;
	int most = 1;
	Size size;

	if (*skip(*newval) == '\0')
		return true;
	for (const char *at = *newval; *at != '\0'; at++)
		most += *at == ',';
	size = offsetof(StandbyList, slots) + most * sizeof(StandbySlot);
	list = allocate_extra(size);
	if (list == NULL)
		return false;
	memset(list, 0, size);
	if (!read_list(list, *newval))
	{
		free_extra(list);
		return false;
	}
	*extra = list;
	return true;
}

#endif
