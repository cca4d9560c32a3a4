# SPDX-License-Identifier: PostgreSQL
#
# The fuzz targets: each test/fuzz/<target>.cpp with the core, compiled by clang
# with its fuzzer and its sanitizers.  Called by run_fuzz.sh from the top of the
# repository.

CXX = clang++
SANITIZE = -fsanitize=address,undefined -fno-sanitize-recover=all
CXXFLAGS = -std=c++17 -Wall -Wextra -Werror -O2 -g -fno-omit-frame-pointer -fno-exceptions -fno-rtti $(SANITIZE) -Isrc

# What reads the bytes of strangers: the rest of the core needs Boost, and sees none of them.
core_sources := $(wildcard src/core/accept/*.cpp src/core/auth/*.cpp src/core/session/*.cpp)
target_sources := $(wildcard test/fuzz/*.cpp)

core_objects := $(core_sources:%.cpp=build/fuzz/%.o)
target_objects := $(target_sources:%.cpp=build/fuzz/%.o)
targets := $(target_sources:test/fuzz/%.cpp=build/fuzz/bin/%)

.PHONY: all
all: $(targets)

# The fuzzer looks for new ways through the core, not through the checks around it.
$(core_objects): CXXFLAGS += -fsanitize=fuzzer-no-link

$(core_objects) $(target_objects): build/fuzz/%.o: %.cpp test/tools/fuzz.mk
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) -MMD -MP -c -o $@ $<

$(targets): build/fuzz/bin/%: build/fuzz/test/fuzz/%.o $(core_objects)
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) -fsanitize=fuzzer -o $@ $^

-include $(core_objects:.o=.d) $(target_objects:.o=.d)
