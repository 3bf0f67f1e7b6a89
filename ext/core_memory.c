/*
 * What a process with a core does to stay small.
 */
#include "postgres.h"

#include <dlfcn.h>
#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core.h"

/* Blocks of at least this size are the system's again as soon as they are free. */
#define LARGE_BLOCK (128 * 1024)

/* Give back the unchanged pages of a library: those in use come back from the page cache, and those of its start do not */
static int
release_pages(struct dl_phdr_info *info, size_t size, void *base)
{
	uintptr_t page = sysconf(_SC_PAGESIZE);

	if (info->dlpi_addr != (uintptr_t) base)
		return 0;
	for (int i = 0; i < info->dlpi_phnum; i++)
	{
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
		uintptr_t begin = (info->dlpi_addr + segment->p_vaddr) & ~(page - 1);
		uintptr_t end = (info->dlpi_addr + segment->p_vaddr + segment->p_filesz) & ~(page - 1);

		if (segment->p_type == PT_LOAD && (segment->p_flags & PF_W) == 0 && begin < end)
			(void) madvise((void *) begin, end - begin, MADV_DONTNEED);
	}
	return 1;
}

/*
 * The large blocks are lists of all slots, on their way to and from the core. By default the C library keeps them after the first one, in a
 * heap that grows around what stays.
 */
void
replsync_core_keep_small(void)
{
#ifdef __GLIBC__
	(void) mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK);
#endif
}

/* Give back what is not in use at the moment, of the heap and of the library that has this address */
void
replsync_core_trim(const void *address)
{
	Dl_info library;

#ifdef __GLIBC__
	(void) malloc_trim(0);
#endif
	if (dladdr(address, &library) != 0)
		(void) dl_iterate_phdr(release_pages, library.dli_fbase);
}
