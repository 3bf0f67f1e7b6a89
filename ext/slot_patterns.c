/*
 * The patterns of replsync.slots. The grammar is that of gosrc/internal/slotsync/patterns.go, and a test there runs
 * both beside each other: therefore nothing here needs a server, or its headers.
 */
#include "slot_patterns.h"

#include <string.h>

#define FAILOVER_WORD  "@failover"
#define FIRST_FAILOVER 17 /* the major version from which slots have that flag */
#define MAX_NAME	   63 /* NAMEDATALEN - 1 */

/* An item of the list, without the spaces around it */
typedef struct Item
{
	const char *text;
	int length;
} Item;

/* Is this a space? The locale must not have a say in what a value means. */
static bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Take the next item off the list, with nothing left of it at the end */
static Item
next_item(const char **list)
{
	const char *start = *list;
	const char *end = start + strcspn(start, ",");
	Item item;

	*list = *end == ',' ? end + 1 : NULL;
	while (start < end && is_space(*start))
		start++;
	while (end > start && is_space(end[-1]))
		end--;
	item.text = start;
	item.length = (int) (end - start);
	return item;
}

/* Does the value leave everything to the default? */
static bool
is_default(const char *value)
{
	while (is_space(*value))
		value++;
	return *value == '\0';
}

static bool
is_failover_word(Item item)
{
	return item.length == (int) strlen(FAILOVER_WORD) &&
		   memcmp(item.text, FAILOVER_WORD, item.length) == 0;
}

/* Cut the mark of an exclusion off, if there is one */
static bool
cut_exclusion(Item *item)
{
	if (item->length == 0 || item->text[0] != '!')
		return false;
	item->text++;
	item->length--;
	return true;
}

/* Can the item match a slot? ReplicationSlotValidateName allows no other characters. */
static bool
valid_item(Item item)
{
	int characters = 0;

	if (is_failover_word(item))
		return true;
	cut_exclusion(&item);
	for (int i = 0; i < item.length; i++)
	{
		char c = item.text[i];

		if ((c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '?' && c != '*')
			return false;
		if (c != '*')
			characters++;
	}
	return item.length > 0 && characters <= MAX_NAME;
}

/* Can the server take this value? If not, bad is the first item that it cannot take. */
bool
replsync_slot_patterns_valid(const char *value, const char **bad, int *bad_length)
{
	if (is_default(value))
		return true;
	while (value != NULL)
	{
		Item item = next_item(&value);

		if (!valid_item(item))
		{
			*bad = item.text;
			*bad_length = item.length;
			return false;
		}
	}
	return true;
}

/* Does a pattern match a name? */
static bool
matches(Item pattern, const char *name)
{
	int at = 0;
	int star = -1; /* the last one met */
	const char *rest = name;

	while (*name != '\0')
	{
		if (at < pattern.length && pattern.text[at] == '*')
		{
			star = at++;
			rest = name;
		}
		else if (at < pattern.length && (pattern.text[at] == '?' || pattern.text[at] == *name))
		{
			at++;
			name++;
		}
		else if (star >= 0)
		{
			at = star + 1;
			name = ++rest;
		}
		else
			return false;
	}
	while (at < pattern.length && pattern.text[at] == '*')
		at++;
	return at == pattern.length;
}

/* Does a valid value name this slot of a server of that major version? */
bool
replsync_slot_wanted(const char *value, int major, const char *name, bool failover)
{
	bool all = true; /* nothing is included by name */
	bool wanted = false;

	if (is_default(value))
		return major < FIRST_FAILOVER || failover;
	while (value != NULL)
	{
		Item item = next_item(&value);

		if (is_failover_word(item))
		{
			all = false;
			wanted = wanted || failover;
		}
		else if (cut_exclusion(&item))
		{
			if (matches(item, name))
				return false;
		}
		else
		{
			all = false;
			wanted = wanted || matches(item, name);
		}
	}
	return all || wanted;
}
