/*
 * Answers for each line "value TAB major TAB name TAB failover" on its standard input what the C part makes of it:
 * "invalid", "wanted" or "unwanted".
 */
#include "slot_patterns.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int
main(void)
{
	char line[4096];

	while (fgets(line, sizeof(line), stdin) != NULL)
	{
		char *rest = line;
		char *value = strsep(&rest, "\t");
		char *major = strsep(&rest, "\t");
		char *name = strsep(&rest, "\t");
		char *failover = strsep(&rest, "\n");
		const char *bad;
		int length;

		if (failover == NULL)
			return 1;
		if (!replsync_slot_patterns_valid(value, &bad, &length))
			puts("invalid");
		else if (replsync_slot_wanted(value, atoi(major), name, strcmp(failover, "true") == 0))
			puts("wanted");
		else
			puts("unwanted");
	}
	return 0;
}
