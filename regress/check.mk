# What a developer, a stranger and the CI call: everything is installed, built and tested from
# here. None of it needs pg_config to be there at the start.
#
#   make check      all of it: form, unit tests, then servers of every version in PGVERSIONS
#   make demo       a failover to look at, with this machine's own PostgreSQL version
#
# and its parts: servers, core, installed, lint, indent, unit, cluster.
#
#   PGVERSIONS="15 17"       the major versions to test (default: 15 17 18 19)
#   RUN=TestName             only these cluster tests
#   PACKAGES=./regress/...   only the cluster tests of these packages
#   REPLSYNC_KEEP=1          keep the data directories of the servers

PGVERSIONS ?= 15 17 18 19
REPLSYNC_CACHE ?= /var/cache/replsync
REPLSYNC_ROOTS ?= $(REPLSYNC_CACHE)/roots
export PGVERSIONS REPLSYNC_CACHE REPLSYNC_ROOTS

GO ?= $(shell command -v go || echo /usr/local/go/bin/go)
# golangci-lint calls it by name.
export PATH := $(PATH):$(patsubst %/,%,$(dir $(GO)))
GOLANGCI_VERSION = v2.15.0
# Not in REPLSYNC_CACHE: it belongs to the user who builds.
TOOLS = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/replsync/golangci-lint-$(GOLANGCI_VERSION)
PACKAGES ?= ./regress/...
RUN ?= .

# The servers are started as another user, in roots: that takes root. What is built is built as
# the caller.
KEPT = PATH,PGVERSIONS,REPLSYNC_CACHE,REPLSYNC_ROOTS,REPLSYNC_TMP,REPLSYNC_KEEP,REPLSYNC_REFRESH,REPLSYNC_MIRROR,REPLSYNC_PG15_BINDIR,REPLSYNC_PG16_BINDIR,REPLSYNC_PG17_BINDIR,REPLSYNC_PG18_BINDIR,REPLSYNC_PG19_BINDIR,COPT,ASSERT,CI
ifeq ($(shell id -u),0)
AS_ROOT =
EXEC_AS_ROOT =
else
AS_ROOT = sudo --preserve-env=$(KEPT) env "PATH=$$PATH"
EXEC_AS_ROOT = -exec 'sudo --preserve-env=$(KEPT)'
endif

# This machine's own version: make demo needs no other, and its pg_config is what the core is
# built with.
NATIVE = $(shell regress/servers/native.sh)
SERVER_VERSIONS = $(shell printf '%s\n' $(PGVERSIONS) $(NATIVE) | sort -un)

.PHONY: check demo servers core installed lint indent unit cluster tools native

check: lint unit cluster

tools:
	@test -x "$(GO)" || { echo "Go was not found: replsync needs Go $$(sed -n 's/^go //p' go.mod) or later from https://go.dev/dl" >&2; exit 1; }
	@$(AS_ROOT) regress/servers/tools.sh build servers lint

servers: tools
	@$(AS_ROOT) regress/servers/prepare.sh $(SERVER_VERSIONS)

native: tools
	@$(AS_ROOT) regress/servers/prepare.sh $(NATIVE)

# With goals of its own make reads the rules for the core, which need the pg_config that is there by now.
BUILD_CORE = $(MAKE) --no-print-directory -s PG_CONFIG=/usr/lib/postgresql/$(NATIVE)/bin/pg_config

core: native
	@$(BUILD_CORE) replsync_core.so replsync_core_selftest.so

# Callbacks have parameters that they do not need.
WARNINGS = -Wall -Wextra -Wno-unused-parameter $(if $(CI),-Werror)

installed: servers core
	@$(AS_ROOT) env COPT="$(WARNINGS)" regress/servers/install.sh

lint: servers $(TOOLS)/golangci-lint
	@echo "== lint"
	@unformatted=$$($$($(GO) env GOROOT)/bin/gofmt -l gosrc regress) && test -z "$$unformatted" || \
		{ echo "not in the form of gofmt: $$unformatted" >&2; exit 1; }
	@$(GO) vet ./...
	@$(TOOLS)/golangci-lint run -c .ci/golangci.yml ./...
	@$(AS_ROOT) regress/servers/prepare.sh 17
	@$(AS_ROOT) .ci/indent
	@shellcheck -x -P SCRIPTDIR .ci/run .ci/indent regress/servers/*.sh
	@shellcheck -s sh regress/cluster/launch.sh

# Puts ext/ into the form that lint asks for.
indent: tools
	@$(AS_ROOT) regress/servers/prepare.sh 17
	@$(AS_ROOT) .ci/indent --fix

$(TOOLS)/golangci-lint: | tools
	@echo "== building golangci-lint $(GOLANGCI_VERSION)"
	@GOBIN=$(TOOLS) GOFLAGS= $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

unit:
	@echo "== unit tests"
	@$(GO) test -race ./gosrc/...

cluster: installed
	@echo "== tests on PostgreSQL $(PGVERSIONS)"
	@$(GO) test -race -p 1 -count 1 -timeout 60m -run '$(RUN)' $(EXEC_AS_ROOT) $(PACKAGES)

demo: core
	@$(AS_ROOT) env COPT= ASSERT= regress/servers/install.sh $(NATIVE)
	@$(GO) run $(EXEC_AS_ROOT) ./regress/demo -major $(NATIVE)
