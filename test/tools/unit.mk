# SPDX-License-Identifier: PostgreSQL
#
# The core on its own: unit tests, and each header compiled alone.  There is no
# path to PostgreSQL's headers in these flags, which is the proof that the core
# needs none.  Called by run_unit.sh from the top of the repository.

CXX = g++
SANITIZE = -fsanitize=address,undefined -fno-sanitize-recover=all
CXXFLAGS = -std=c++17 -Wall -Wextra -Werror -O1 -g -fno-exceptions -fno-rtti $(SANITIZE) -Isrc

core_sources := $(wildcard src/core/*/*.cpp)
core_headers := $(wildcard src/core/*/*.hpp src/core/*.hpp)
test_sources := $(wildcard test/unit/test_*.cpp)

core_objects := $(core_sources:%.cpp=build/unit/%.o)
test_objects := $(test_sources:%.cpp=build/unit/%.o)
tests := $(test_sources:test/unit/%.cpp=build/unit/%)
header_stamps := $(core_headers:%=build/unit/%.alone)
deps := $(core_objects:.o=.d) $(test_objects:.o=.d) $(header_stamps:=.d)

.PHONY: all tests headers
all: headers tests
tests: $(tests)
headers: $(header_stamps)

$(core_objects) $(test_objects): build/unit/%.o: %.cpp test/tools/unit.mk
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) -MMD -MP -c -o $@ $<

$(tests): build/unit/%: build/unit/test/unit/%.o $(core_objects)
	$(CXX) $(CXXFLAGS) -o $@ $^ -lcmocka

# -include keeps "#pragma once in main file" and its like out of the way.
$(header_stamps): build/unit/%.alone: % test/tools/unit.mk
	@mkdir -p $(@D)
	$(CXX) $(filter-out $(SANITIZE),$(CXXFLAGS)) -MMD -MP -MF $@.d -MT $@ -fsyntax-only -x c++ -include $< /dev/null
	@touch $@

-include $(deps)
