/*
 * The sequences under care of a subscription, as a worker keeps them: what the three files about that share.
 */
#ifndef REPLSYNC_SEQUENCE_LIST_H
#define REPLSYNC_SEQUENCE_LIST_H

#include "utils/palloc.h"

/* Shared by neighbours: nearly all sequences have the same. */
typedef struct SequenceDefinition
{
	Oid type;
	bool cycle;
	int64 start;
	int64 increment;
	int64 min;
	int64 max;
} SequenceDefinition;

typedef struct ListedSequence
{
	const char *schema;
	const char *name;
	const char *problem; /* its reason; NULL: none */
	uint32 problem_hash; /* of detail and hint */
	Oid oid;			 /* InvalidOid: there is none of that name */
	Oid filenode;
	Oid tablespace;
	char persistence;
	bool by_core;
	bool taken; /* nothing but another kind of relation has the name */
	const SequenceDefinition *definition;
} ListedSequence;

typedef struct SequenceList
{
	MemoryContext context;
	Oid subscription;
	ListedSequence *sequences;
	int count;
	int capacity;
	int next; /* where the last batch ended */
	bool any_taken;
	int news; /* problems that came or went: each leaves its text in the pool */
	char *pool;
	Size pool_left;
} SequenceList;

/* sequence_catalog.c */
extern SequenceList replsync_list;

extern void replsync_list_begin(Oid subscription);
extern int replsync_list_compare(const ListedSequence *sequence, const char *schema, const char *name);
extern int replsync_list_position(const char *schema, const char *name);
extern void replsync_list_look_again(ListedSequence *sequence);

/* sequence_changes.c: what has changed in the catalogs since the list was read */
extern void replsync_changes_watch(void);
extern void replsync_changes_seen(void);
extern bool replsync_changes_have(Oid relid);
extern bool replsync_changes_are_of_others(void);
extern bool replsync_changes_are_many(void);

#endif
