# SPDX-License-Identifier: PostgreSQL
#
#   make, make install, make clean   as for any extension; need pg_config
#   make demo [KEEP=1]               500 clients through a throw-away server, with the views shown
#   make test                        unit, regression and end-to-end tests, and a minute of fuzzing
#   make test-unit | test-model | test-regress | test-tap [TAP_TESTS="test/tap/..."]
#   make fuzz [FUZZ_SECONDS=15 | FUZZ_RUNS=20000000]
#                                    hostile bytes for whatever reads a client's: so long, or so often, for each target
#   make bench                       comparison with a direct connection and PgBouncer
#   make bench-tls                   the same of encrypted connections
#   make bench-state                 what carrying session state costs
#   make bench-statistics            what the pool's statistics cost, and whether they are right
#   make bench-sizing                whether the size advised for a pool is a good one
#   make bench-hostile               what strangers at the door cost those who work
#   make lab                         the load lab: every scenario, side by side with other pools; reports and plots
#                                    in build/lab
#   make lab-quick                   the same in less than five minutes, to see that it works and not to quote
#   make lab-stress | lab-report | lab-monitor | lab-spike | lab-sizing | lab-payments | lab-herd | lab-trouble |
#        lab-peers                   one of them; see test/bench/README.md
#   make lab-herd-in-machine         100,000 idle clients in a virtual machine, where this one allows fewer open files
#   make load-generator              build/test/bench/load_generator alone; see test/bench/README.md
#   make check-postgres              PostgreSQL's own regression suite, direct and through the pool
#   make check-kernel-tls            tests of TLS by the kernel, in a virtual machine whose kernel can do it
#
# All from `demo` on first install what is missing (Debian packages, as root or with sudo), so they are defined whether
# or not there is a pg_config yet.  Another server than Debian's: PG_CONFIG=/path/to/pg_config, or PG_MAJOR=16.

EXTENSION = pg_sluice
MODULE_big = pg_sluice
DATA = $(wildcard pg_sluice--*.sql)
OBJS = $(patsubst %.cpp,build/%.o,$(wildcard src/core/*/*.cpp src/pg/*.cpp src/pg/*/*.cpp))
EXTRA_CLEAN = build

PG_MAJOR ?= 15
PG_CONFIG ?= $(firstword $(wildcard /usr/lib/postgresql/$(PG_MAJOR)/bin/pg_config) pg_config)
PGXS := $(wildcard $(shell $(PG_CONFIG) --pgxs 2>/dev/null))
WERROR = -Werror

FUZZ_PACKAGES = clang libclang-rt-dev

LAB_SCENARIOS = $(addprefix lab-,stress report monitor spike sizing payments herd trouble peers)

.PHONY: all packages demo test test-unit test-model test-regress test-tap fuzz bench bench-tls bench-state bench-statistics \
  bench-sizing bench-hostile lab lab-quick lab-herd-in-machine $(LAB_SCENARIOS) load-generator check-postgres check-kernel-tls
all:

ifneq (,$(PGXS))
# PGDLLEXPORT is empty before PostgreSQL 16; with hidden visibility it has to mark what the server looks up by name.
PG_CPPFLAGS = -Isrc -D'PGDLLEXPORT=__attribute__((visibility("default")))'
# Names and messages are cut to fit by intent; the server is built without these two warnings for the same reason.
PG_CXXFLAGS = -std=c++17 -O2 -fno-exceptions -fno-rtti -fvisibility=hidden -Wall -Wextra $(WERROR) \
  -Wno-format-truncation -Wno-stringop-truncation
# PGXS links with the C compiler.
SHLIB_LINK = -lstdc++ $(filter -lssl -lcrypto,$(LIBS))
# Bitcode is for functions worth inlining into queries; there are none.
override with_llvm = no

include $(PGXS)

# Warnings are for our code: the server's headers are system headers.
override CPPFLAGS := $(patsubst -I/%,-isystem /%,$(CPPFLAGS))

$(OBJS): build/%.o: %.cpp Makefile
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) $(CPPFLAGS) -MMD -MP -c -o $@ $<

-include $(OBJS:.o=.d)
else
all install uninstall clean:
	@echo 'no PGXS found with "$(PG_CONFIG)": run "make packages", or give PG_CONFIG=/path/to/pg_config' >&2; exit 1
endif

packages:
	@test/tools/install_packages.sh

demo: packages
	@KEEP=$(KEEP) test/tools/demo.sh

test:
	@test/tools/install_packages.sh $(FUZZ_PACKAGES)
	@test/tools/run_unit.sh
	@test/tools/run_model.sh
	@FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_RUNS=$(FUZZ_RUNS) test/tools/run_fuzz.sh
	@test/tools/run_regress.sh
	@test/tools/run_tap.sh $(TAP_TESTS)

test-unit test-model test-regress: test-%: packages
	@test/tools/run_$*.sh

test-tap: packages
	@test/tools/run_tap.sh $(TAP_TESTS)

fuzz:
	@test/tools/install_packages.sh $(FUZZ_PACKAGES)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_RUNS=$(FUZZ_RUNS) test/tools/run_fuzz.sh $(FUZZ_TARGETS)

bench:
	@test/tools/install_packages.sh pgbouncer
	@test/bench/run.sh

bench-tls:
	@test/tools/install_packages.sh pgbouncer
	@test/bench/tls.sh

bench-state: packages
	@test/bench/session_state.sh

bench-statistics bench-sizing bench-hostile: bench-%: packages
	@test/bench/$*.sh

# Each installs what it needs.
lab:
	@test/bench/lab/run.sh

lab-quick:
	@LAB_QUICK=1 test/bench/lab/run.sh

load-generator: packages
	@bash -c 'source test/tools/common.sh && find_postgres && build_load_generator'

lab-herd-in-machine:
	@test/tools/run_herd_in_machine.sh

$(LAB_SCENARIOS): lab-%:
	@test/bench/lab/run.sh $*

check-postgres:
	@test/tools/install_packages.sh dpkg-dev
	@test/postgres/run.sh

check-kernel-tls: packages
	@test/tools/install_packages.sh qemu-system-x86 xz-utils
	@test/tools/run_kernel_tls.sh $(TAP_TESTS)
