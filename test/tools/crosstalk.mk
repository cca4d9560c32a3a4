# SPDX-License-Identifier: PostgreSQL
#
# The program of the cross-talk test, a client of libpq.  Called by run_tap.sh
# from the top of the repository, with PG_CONFIG.

CXX = g++
CXXFLAGS = -std=c++17 -Wall -Wextra -Werror -O1 -g -isystem $(shell $(PG_CONFIG) --includedir)
libdir := $(shell $(PG_CONFIG) --libdir)

objects := $(patsubst %.cpp,build/%.o,$(wildcard test/crosstalk/*.cpp))

build/test/crosstalk/crosstalk: $(objects)
	$(CXX) -o $@ $^ -L$(libdir) -Wl,-rpath,$(libdir) -lpq

$(objects): build/%.o: %.cpp test/tools/crosstalk.mk
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) -MMD -MP -c -o $@ $<

-include $(objects:.o=.d)
