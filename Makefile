# replsync: a C shim (replsync.so, preloaded) and a Go core (replsync_core.so, opened by its workers)

EXTENSION = replsync
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" replsync.control)

MODULE_big = replsync
OBJS = $(patsubst %.c,%.o,$(wildcard ext/*.c))
DATA = $(wildcard sql/*--*--*.sql)
DATA_built = sql/$(EXTENSION)--$(EXTVERSION).sql

CORE = replsync_core.so
SELFTEST_CORE = replsync_core_selftest.so
ARCHIVE = gosrc/build/libreplsync_core.a
SELFTEST_ARCHIVE = gosrc/build/libreplsync_core_selftest.a
.DEFAULT_GOAL = all
EXTRA_CLEAN = $(CORE) $(SELFTEST_CORE) gosrc/build

-include regress/check.mk

# The goals that prepare a machine, or need no PostgreSQL, work where no pg_config is yet.
GOALS_WITHOUT_PGXS = check check-versions torture demo bench bench-slots bench-sequences bench-installed \
	lint unit cluster servers native core installed indent tools check-version $(CORE) $(SELFTEST_CORE)
ifneq ($(filter-out $(GOALS_WITHOUT_PGXS),$(or $(MAKECMDGOALS),all)),)

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
ifeq ($(PGXS),)
$(error pg_config was not found: install postgresql-server-dev-NN or set PG_CONFIG)
endif
PG_MAJOR := $(shell $(PG_CONFIG) --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
ifeq ($(shell test $(PG_MAJOR) -lt 15 && echo old),old)
$(error replsync needs PostgreSQL 15 or later; $(PG_CONFIG) is of version $(PG_MAJOR))
endif
# Go's runtime cannot be opened at run time under musl (golang/go#54805).
ifneq ($(shell ldd --version 2>&1 | grep -i musl),)
$(error replsync cannot run with musl (Alpine Linux): use a system with glibc)
endif

PG_CPPFLAGS = -DREPLSYNC_VERSION='"$(EXTVERSION)"' -I$(shell $(PG_CONFIG) --includedir)
# The check of replsync.primary_conninfo parses with libpq.
SHLIB_LINK = -lpq -ldl -lpthread

include $(PGXS)

all: $(CORE)

$(OBJS): $(wildcard ext/*.h)

sql/$(EXTENSION)--$(EXTVERSION).sql: sql/$(EXTENSION).sql
	cp $< $@

install: install-core
install-core: $(CORE) | installdirs-lib
	$(INSTALL_SHLIB) $(CORE) '$(DESTDIR)$(pkglibdir)/$(CORE)'

uninstall: uninstall-core
uninstall-core:
	rm -f '$(DESTDIR)$(pkglibdir)/$(CORE)'

.PHONY: install-core uninstall-core

endif

# --- the Go core: the same for every PostgreSQL version, so it is built once ---

GO ?= $(shell command -v go || echo /usr/local/go/bin/go)
# Git may refuse a clone that belongs to somebody else, and nothing here needs its word.
export GOFLAGS := -buildvcs=false $(GOFLAGS)
GO_MINIMUM := $(shell sed -n 's/^go //p' go.mod 2>/dev/null)
GO_SOURCES := $(shell find gosrc -name '*.go' -o -name '*.c' 2>/dev/null)
GO_VERSION = $(shell $(GO) env GOVERSION 2>/dev/null | sed 's/^go//')
GO_OLDEST = $(shell printf '%s\n' $(GO_MINIMUM) $(GO_VERSION) | sort -V | head -1)
# asyncpreemptoff: without it the runtime unblocks SIGURG on its threads, and wake-ups of the
# latch get lost (runtime/signal_unix.go, blockableSig). Neither the environment nor //go:debug can
# set it in a library; the shim checks at load that it took effect.
GO_LDFLAGS = -s -w -X=runtime.godebugDefault=asyncpreemptoff=1
# netgo, osusergo: no getaddrinfo or getpwuid of libc on Go's threads.
GO_TAGS = netgo,osusergo
# nodelete: the runtime cannot be unloaded. Bsymbolic and the version script: another Go runtime in this
# process, of another extension, must not be mixed up with this one.
CORE_LDFLAGS = -Wl,-z,nodelete -Wl,-Bsymbolic -Wl,--version-script=ext/core.map

check_go = $(if $(GO_VERSION),,$(error Go was not found: replsync needs Go $(GO_MINIMUM) or later from https://go.dev/dl, in PATH or named with GO=))\
	$(if $(filter $(GO_MINIMUM),$(GO_OLDEST)),,$(error Go $(GO_VERSION) is too old: replsync needs Go $(GO_MINIMUM) or later from https://go.dev/dl (that of Debian 12 is 1.19)))

comma = ,

define build_archive
	$(check_go)
	CGO_ENABLED=1 CGO_CFLAGS='-O2 -g -DREPLSYNC_VERSION=$(EXTVERSION)' $(GO) build -buildmode=c-archive -trimpath \
		-tags $(GO_TAGS)$(1) -ldflags '$(GO_LDFLAGS)' -o $@ ./gosrc/cmd/core
endef

define link_core
	$(CC) -shared -o $@ -Wl,--whole-archive $< -Wl,--no-whole-archive $(CORE_LDFLAGS) -lpthread
endef

$(ARCHIVE): $(GO_SOURCES) ext/core_api.h $(wildcard go.mod go.sum)
	$(call build_archive)

$(CORE): $(ARCHIVE) ext/core.map
	$(link_core)

# Further work for tests of the boundary; never installed by "make install".
$(SELFTEST_ARCHIVE): $(GO_SOURCES) ext/core_api.h $(wildcard go.mod go.sum)
	$(call build_archive,$(comma)selftest)

$(SELFTEST_CORE): $(SELFTEST_ARCHIVE) ext/core.map
	$(link_core)

# --- the version: once in the control file; what cannot derive it must agree with it ---

lint: check-version

check-version:
	@test "$$(sed '/"meta-spec"/,$$d' META.json | grep -c '"version": "$(EXTVERSION).0"')" = 2 || \
		{ echo "META.json does not have version $(EXTVERSION).0 twice" >&2; exit 1; }
	@grep -q '^## $(EXTVERSION)\b' CHANGELOG.md || { echo "CHANGELOG.md has no version $(EXTVERSION)" >&2; exit 1; }

.PHONY: lint check-version
