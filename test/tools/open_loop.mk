# SPDX-License-Identifier: PostgreSQL
#
# The load generator of the benchmarks, a client of libpq, with the core's
# histogram.  Called by common.sh from the top of the repository, with PG_CONFIG.

CXX = g++
CXXFLAGS = -std=c++17 -Wall -Wextra -Werror -O2 -g -Isrc -isystem $(shell $(PG_CONFIG) --includedir)
libdir := $(shell $(PG_CONFIG) --libdir)

sources := test/bench/open_loop.cpp $(wildcard test/bench/load/*.cpp) \
  src/core/stats/histogram.cpp src/core/stats/percentile.cpp
objects := $(sources:%.cpp=build/%.load.o)

build/test/bench/open_loop: $(objects)
	$(CXX) -o $@ $^ -L$(libdir) -Wl,-rpath,$(libdir) -lpq

$(objects): build/%.load.o: %.cpp test/tools/open_loop.mk
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) -MMD -MP -c -o $@ $<

-include $(objects:.o=.d)
