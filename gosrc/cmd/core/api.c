#include "core_api.h"
#include "_cgo_export.h"

/* The Makefile hands over the control file's version. */
#ifndef REPLSYNC_VERSION
#define REPLSYNC_VERSION devel
#endif
#define STRINGIFY(text)			#text
#define VERSION_STRING(version) STRINGIFY(version)

/*
 * The table that the shim calls through. It lives in C because a CoreApi holds C function
 * pointers, and cgo exports Go functions only as C symbols.
 */
static int
start(const char *kind, const char *argument, int wakeup_fd, int64_t memory_limit)
{
	return coreStart((char *) kind, (char *) argument, wakeup_fd, memory_limit);
}

static int
next(CoreRequest *request)
{
	return coreNext(request);
}

static void
answer(uint64_t id, const CoreError *error, const void *data, uint64_t len)
{
	coreAnswer(id, (CoreError *) error, (void *) data, len);
}

static void
cancel(void)
{
	coreCancel();
}

static const CoreApi api = {
	.abi = CORE_ABI,
	.version = VERSION_STRING(REPLSYNC_VERSION),
	.start = start,
	.next = next,
	.answer = answer,
	.cancel = cancel,
};

const CoreApi *
replsync_core(void)
{
	return &api;
}
