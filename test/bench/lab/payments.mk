# SPDX-License-Identifier: PostgreSQL
#
# The application server of the payments scenario, a client of libpq.  Called from the top of the repository, with
# PG_CONFIG.

CXX = g++
CXXFLAGS = -std=c++17 -Wall -Wextra -Werror -O2 -g -isystem $(shell $(PG_CONFIG) --includedir)
libdir := $(shell $(PG_CONFIG) --libdir)

sources := $(wildcard test/bench/lab/payments_*.cpp)
objects := $(sources:%.cpp=build/%.o)

build/test/bench/payments_clients: $(objects)
	@mkdir -p $(@D)
	$(CXX) -o $@ $^ -L$(libdir) -Wl,-rpath,$(libdir) -lpq

$(objects): build/%.o: %.cpp test/bench/lab/payments.mk
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) -MMD -MP -c -o $@ $<

-include $(objects:.o=.d)
