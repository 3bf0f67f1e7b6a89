# What a developer, a stranger and the CI call: everything is installed, built and tested from
# here. None of it needs pg_config to be there at the start.
#
#   make check      all of it: form, unit tests, then servers of every version in PGVERSIONS
#   make demo       a failover and an upgrade to look at, with this machine's own PostgreSQL version
#   make torture    failovers of every version under load, with all kinds of faults
#   make check-versions   check, and a short torture
#
# its parts: servers, core, installed, lint, unit, cluster; and make indent, which puts the C sources into
# the form that lint asks for, and make bench and make bench-sequences, which take ten minutes each.
#
#   PGVERSIONS="15 17"       the major versions to test (default: 15 17 18 19)
#   PUBLISHERS="10 13"       older ones, whose servers are publishers of sequences (default: 13); may be empty
#   REPLSYNC_PG16_BINDIR=... the programs of a version that Debian does not have, here 16
#   RUN=TestName             only these cluster tests
#   PACKAGES=./regress/...   only the cluster tests of these packages
#   ROUNDS=25 SEED=7         how many failovers the torture makes, and which (default: 3, other ones each time)
#   REPLSYNC_KEEP=1          keep the data directories of the servers

PGVERSIONS ?= 15 17 18 19
PUBLISHERS ?= 13
REPLSYNC_CACHE ?= /var/cache/replsync
REPLSYNC_ROOTS ?= $(REPLSYNC_CACHE)/roots
export PGVERSIONS PUBLISHERS REPLSYNC_CACHE REPLSYNC_ROOTS

GO ?= $(shell command -v go || echo /usr/local/go/bin/go)
# golangci-lint calls it by name.
export PATH := $(PATH):$(patsubst %/,%,$(dir $(GO)))
GOLANGCI_VERSION = v2.15.0
# Not in REPLSYNC_CACHE: it belongs to the user who builds.
TOOLS = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/replsync/golangci-lint-$(GOLANGCI_VERSION)
PACKAGES ?= ./regress/...
RUN ?= .
ROUNDS ?= 3

# The servers are started as another user, in roots: that takes root. What is built is built as
# the caller.
EMPTY =
# Each with a comma behind it, and no blank.
BINDIRS = $(subst $(EMPTY) ,$(EMPTY),$(foreach major,10 11 12 13 14 15 16 17 18 19,REPLSYNC_PG$(major)_BINDIR,))
KEPT = PATH,PGVERSIONS,PUBLISHERS,REPLSYNC_CACHE,REPLSYNC_ROOTS,REPLSYNC_TMP,REPLSYNC_KEEP,REPLSYNC_REFRESH,REPLSYNC_MIRROR,$(BINDIRS)COPT,ASSERT,CI
ifeq ($(shell id -u),0)
AS_ROOT =
EXEC_AS_ROOT =
else
AS_ROOT = sudo --preserve-env=$(KEPT) env "PATH=$$PATH"
EXEC_AS_ROOT = -exec 'sudo --preserve-env=$(KEPT)'
endif

# This machine's own version: make demo needs no other.
NATIVE = $(shell regress/servers/native.sh)
# On this machine where it is installed here, else in the root that was made for it.
NATIVE_HEADERS = $(shell test -d /usr/include/postgresql/$(NATIVE)/server || echo $(REPLSYNC_ROOTS)/$(NATIVE))/usr/include/postgresql
NATIVE_CONFIG = /usr/lib/postgresql/$(NATIVE)/bin/pg_config

.PHONY: check check-versions torture demo bench bench-slots bench-sequences bench-installed servers core installed lint indent unit cluster tools native

check: lint unit cluster

check-versions: check torture

tools:
	@test -x "$(GO)" || { echo "Go was not found: replsync needs Go $$(sed -n 's/^go //p' go.mod) or later from https://go.dev/dl" >&2; exit 1; }
	@$(AS_ROOT) regress/servers/tools.sh build servers lint

servers: tools
	@$(AS_ROOT) regress/servers/prepare.sh $(PGVERSIONS) $(PUBLISHERS)

native: tools
	@$(AS_ROOT) regress/servers/prepare.sh $(NATIVE)

# By a make of its own: a build without these goals must not install anything.
core: tools
	@$(MAKE) --no-print-directory -s replsync_core.so replsync_core_selftest.so

# Callbacks have parameters that they do not need.
WARNINGS = -Wall -Wextra -Wno-unused-parameter $(if $(CI),-Werror)

installed: servers core
	@$(AS_ROOT) env COPT="$(WARNINGS)" regress/servers/install.sh

C_SOURCES = $(wildcard ext/*.c ext/*.h regress/selftest/*.c gosrc/cmd/core/*.c)
CLANG_FORMAT = clang-format -style=file:.ci/clang-format
# The server's headers are system headers here: what the flags find in them is not ours to mend.
C_LINT = gcc -O2 -c -o /dev/null $(WARNINGS) -Werror -D_GNU_SOURCE -DREPLSYNC_VERSION='"lint"' -Iext \
	-isystem $(NATIVE_HEADERS)/$(NATIVE)/server -isystem $(NATIVE_HEADERS)

lint: native $(TOOLS)/golangci-lint
	@echo "== lint"
	@unformatted=$$($$($(GO) env GOROOT)/bin/gofmt -l gosrc regress) && test -z "$$unformatted" || \
		{ echo "not in the form of gofmt: $$unformatted" >&2; exit 1; }
	@$(GO) vet ./...
	@$(GO) vet -tags selftest ./gosrc/cmd/core
	@$(TOOLS)/golangci-lint run -c .ci/golangci.yml ./...
	@$(CLANG_FORMAT) --dry-run --Werror $(C_SOURCES)
	@for file in ext/*.c regress/selftest/*.c; do $(C_LINT) $$file || exit 1; done
	@shellcheck -x -P SCRIPTDIR .ci/run regress/servers/*.sh
	@shellcheck -s sh regress/cluster/launch.sh

# Puts the C sources into the form that lint asks for.
indent: tools
	@$(CLANG_FORMAT) -i $(C_SOURCES)

$(TOOLS)/golangci-lint: | tools
	@echo "== building golangci-lint $(GOLANGCI_VERSION)"
	@GOBIN=$(TOOLS) GOFLAGS= $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

unit:
	@echo "== unit tests"
	@$(GO) test -race ./gosrc/...

cluster: installed
	@echo "== tests on PostgreSQL $(PGVERSIONS)$(if $(strip $(PUBLISHERS)), with publishers of $(PUBLISHERS))"
	@$(GO) test -race -p 1 -count 1 -timeout 60m -run '$(RUN)' $(EXEC_AS_ROOT) $(PACKAGES)

# Speed and memory, beside core and peers. Without assertions; a peer that cannot be had is left out.
#
#   BENCH_FLAGS="-versions 17 -slots 1000,5000"    what and how much; -help tells
bench: bench-slots

bench-slots: bench-installed
	@-$(AS_ROOT) regress/servers/extras.sh 17 postgresql-17-pg-failover-slots
	@$(GO) run $(EXEC_AS_ROOT) ./regress/bench/slots $(BENCH_FLAGS)

# Sequences, on the newest of the versions.
bench-sequences: bench-installed
	@$(GO) run $(EXEC_AS_ROOT) ./regress/bench/sequences $(BENCH_FLAGS)

bench-installed: servers core
	@$(AS_ROOT) env COPT= ASSERT= regress/servers/install.sh

torture: installed
	@for major in $(PGVERSIONS); do \
		$(GO) run $(EXEC_AS_ROOT) ./regress/torture -major $$major -rounds $(ROUNDS) $(if $(SEED),-seed $(SEED)) || exit 1; done

demo: native core
	@$(AS_ROOT) env COPT= ASSERT= regress/servers/install.sh $(NATIVE)
	@$(GO) run $(EXEC_AS_ROOT) ./regress/demo -major $(NATIVE)
