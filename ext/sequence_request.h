/*
 * The dynamic shared memory of a request: this, the queue for the answer, and the request's text.
 */
#ifndef REPLSYNC_SEQUENCE_REQUEST_H
#define REPLSYNC_SEQUENCE_REQUEST_H

#include "c.h"

typedef struct SequenceSegment
{
	Size len;
} SequenceSegment;

#define SEQUENCE_QUEUE_SIZE			   65536
#define SEQUENCE_SEGMENT_QUEUE(shared) ((shm_mq *) ((char *) (shared) + MAXALIGN(sizeof(SequenceSegment))))
#define SEQUENCE_SEGMENT_TEXT(shared)  ((char *) SEQUENCE_SEGMENT_QUEUE(shared) + SEQUENCE_QUEUE_SIZE)
#define SEQUENCE_SEGMENT_SIZE(len)	   (MAXALIGN(sizeof(SequenceSegment)) + SEQUENCE_QUEUE_SIZE + (len))

#endif
