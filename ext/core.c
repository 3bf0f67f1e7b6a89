/*
 * Loading the Go core into this process, and calling it.
 *
 * The Go runtime starts threads when its library is opened and does not survive a
 * fork, so only a background worker opens it. Go threads inherit the signal mask
 * of the thread that opens the library: it is opened, and every call into it is made,
 * with all signals blocked, or PostgreSQL's handlers would run on Go's threads and
 * stacks and SIGURG, which the latch reads from a signalfd, would get lost there.
 */
#include "postgres.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/eventfd.h>
#endif

#include "miscadmin.h"
#include "storage/fd.h"

#include "core.h"

/* Go reserves about 1.6 GB of address space; below this it aborts the process. */
#define MIN_ADDRESS_SPACE (INT64CONST(2) * 1024 * 1024 * 1024)

/* The heap that the core's garbage collector tries to stay under. */
#define CORE_MEMORY_LIMIT (INT64CONST(64) * 1024 * 1024)

static const CoreApi *core = NULL;
static int wakeup_fd = -1;
static pthread_t main_thread;

/* Block all signals for the time of a call into Go */
static inline void
enter_go(sigset_t *saved)
{
	sigset_t all;

	/* On another thread PostgreSQL's error handling would corrupt the process. */
	if (!pthread_equal(main_thread, pthread_self()))
	{
		write_stderr("replsync: the core was called from another thread\n");
		abort();
	}
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, saved);
}

/* Restore the signals after a call into Go */
static inline void
leave_go(const sigset_t *saved)
{
	sigprocmask(SIG_SETMASK, saved, NULL);
}

/* Refuse an address space limit under which Go would abort the whole cluster */
static void
check_address_space(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
		return;
	if ((int64) limit.rlim_cur < MIN_ADDRESS_SPACE)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("address space limit of the server is too low for replsync"),
				 errdetail("The limit is %lld MB; the core of replsync reserves about 1600 MB without using it.",
						   (long long) (limit.rlim_cur / (1024 * 1024))),
				 errhint("Raise the limit (ulimit -v) to 2 GB or more, or remove it, and restart the server.")));
}

/* Build the path of a library that lies beside this one */
static void
sibling_path(const char *library, char *path)
{
	Dl_info info;

	if (dladdr((void *) sibling_path, &info) == 0 || info.dli_fname == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("could not find the directory of the replsync library")));
	strlcpy(path, info.dli_fname, MAXPGPATH);
	get_parent_directory(path);
	snprintf(path + strlen(path), MAXPGPATH - strlen(path), "/%s%s", library, DLSUFFIX);
}

/* Make the descriptor through which the core wakes the main thread */
static int
make_wakeup_fd(void)
{
#ifdef __linux__
	int fd;

	ReserveExternalFD();
	fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (fd < 0)
		ereport(ERROR,
				(errcode_for_socket_access(),
				 errmsg("could not create an event descriptor: %m")));
	return fd;
#else
#error "replsync needs Linux: elsewhere the latch and the signal mask of Go's threads are not tested"
#endif
}

/*
 * Give Go's alternate stack to each handler that runs while Go's frames may be on
 * the main thread. The runtime does it for handlers that it finds at load; one
 * installed later has lost it.
 */
static void
set_onstack(void)
{
	for (int sig = 1; sig < NSIG; sig++)
	{
		struct sigaction action;

		if (sigaction(sig, NULL, &action) != 0 ||
			action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN ||
			(action.sa_flags & SA_ONSTACK) != 0)
			continue;
		action.sa_flags |= SA_ONSTACK;
		sigaction(sig, &action, NULL);
	}
}

/* Does this thread of ours block every signal that PostgreSQL handles? */
static bool
thread_blocks_signals(const char *tid)
{
	static const int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM, SIGURG};
	char path[MAXPGPATH];
	char line[256];
	unsigned long long blocked = ~0ULL;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%s/status", tid);
	file = fopen(path, "r");
	if (file == NULL)
		return true; /* the thread has ended */
	while (fgets(line, sizeof(line), file) != NULL)
	{
		if (sscanf(line, "SigBlk: %llx", &blocked) == 1)
			break;
	}
	fclose(file);
	for (size_t i = 0; i < lengthof(signals); i++)
	{
		if ((blocked & (1ULL << (signals[i] - 1))) == 0)
			return false;
	}
	return true;
}

/*
 * Check what the linker flag asyncpreemptoff=1 and the blocked load are for. The flag is
 * not a documented interface of Go, so a build may lose it silently.
 */
static void
check_go_threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *entry;
	bool good = true;

	if (dir == NULL)
		return; /* no /proc: nothing to learn */
	while (good && (entry = readdir(dir)) != NULL)
	{
		if (entry->d_name[0] == '.' || atoi(entry->d_name) == MyProcPid)
			continue;
		good = thread_blocks_signals(entry->d_name);
	}
	closedir(dir);
	if (!good)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("core of replsync does not leave the server's signals alone"),
				 errdetail("A thread of the Go runtime has signals unblocked that the server handles, so wake-ups could get lost."),
				 errhint("Build replsync with its own Makefile, which sets the linker flags this needs.")));
}

/* Open the library of the core and check that it fits this one */
static const CoreApi *
open_core(const char *path)
{
	struct rlimit files;
	sigset_t saved;
	void *handle;
	CoreEntry entry = NULL;
	char reason[1024] = "";
	const CoreApi *api;

	/* Go raises the soft limit on open files; the children of this process need the old one. */
	getrlimit(RLIMIT_NOFILE, &files);
	enter_go(&saved);
	handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (handle != NULL)
		entry = (CoreEntry) dlsym(handle, CORE_ENTRY_NAME);
	if (entry == NULL)
		strlcpy(reason, dlerror(), sizeof(reason));
	leave_go(&saved);
	if (entry == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FILE),
				 errmsg("could not load the core of replsync"),
				 errdetail("The system's loader says: %s.", reason),
				 errhint("Install replsync again (make install).")));
	setrlimit(RLIMIT_NOFILE, &files);

	api = entry();
	if (api->abi != CORE_ABI)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("core of replsync does not fit the library that the server has loaded"),
				 errdetail("The core has interface %d, the library %d.", api->abi, CORE_ABI),
				 errhint("Restart the server to complete the upgrade.")));
	return api;
}

/* Load the core; an error leaves the process without one */
void
replsync_core_load(const char *library)
{
	char path[MAXPGPATH];

	main_thread = pthread_self();
	check_address_space();
	replsync_core_keep_small();
	sibling_path(library, path);
	if (wakeup_fd < 0)
		wakeup_fd = make_wakeup_fd();
	core = open_core(path);
}

/* Readable when the core has put a request into its queue */
int
replsync_core_wakeup_fd(void)
{
	return wakeup_fd;
}

/* Start the core's work. The first call waits until the Go runtime is up */
void
replsync_core_start(const char *kind, const char *argument)
{
	sigset_t saved;
	int rc;

	enter_go(&saved);
	rc = core->start(kind, argument, wakeup_fd, CORE_MEMORY_LIMIT);
	set_onstack();
	leave_go(&saved);
	if (rc != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("core of replsync knows no work of kind \"%s\"", kind)));
	check_go_threads();
}

/* Take the next request of the core */
bool
replsync_core_next(CoreRequest *request)
{
	sigset_t saved;
	int found;

	enter_go(&saved);
	found = core->next(request);
	leave_go(&saved);
	return found != 0;
}

/* Answer a request of the core */
void
replsync_core_answer(uint64 id, const CoreError *error, const void *data, uint64 len)
{
	sigset_t saved;

	enter_go(&saved);
	core->answer(id, error, data, len);
	leave_go(&saved);
}

/* Let the core give up what is under way at the remote server */
void
replsync_core_cancel(void)
{
	sigset_t saved;

	enter_go(&saved);
	core->cancel();
	leave_go(&saved);
}

/* Give memory back that is not in use, now that there is nothing to do */
void
replsync_core_release_memory(void)
{
	replsync_core_trim(core);
}
