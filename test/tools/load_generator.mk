# SPDX-License-Identifier: PostgreSQL
#
# The load generator of the benchmarks, with the core's histogram.  It needs no
# library of PostgreSQL: only libssl.  Called by common.sh from the top of the repository.

CXX = g++
CXXFLAGS = -std=c++17 -Wall -Wextra -Werror -O2 -g -Isrc -pthread

sources := test/bench/load_generator.cpp $(wildcard test/bench/load/*.cpp) \
  src/core/stats/histogram.cpp src/core/stats/percentile.cpp
objects := $(sources:%.cpp=build/%.load.o)

build/test/bench/load_generator: $(objects)
	$(CXX) -o $@ $^ -lssl -lcrypto -pthread

$(objects): build/%.load.o: %.cpp test/tools/load_generator.mk
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) -MMD -MP -c -o $@ $<

-include $(objects:.o=.d)
