# SPDX-License-Identifier: PostgreSQL
#
# The model of the hand-over.  Called by run_model.sh from the top of the repository.

sources := $(wildcard test/model/*.cpp) src/core/pool/boost_support.cpp src/core/stats/history_ring.cpp
objects := $(sources:%.cpp=build/model/%.o)

build/model/hand_over: $(objects)
	$(CXX) $(CXXFLAGS) -o $@ $^ -pthread

$(objects): build/model/%.o: %.cpp test/tools/model.mk
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) -MMD -MP -c -o $@ $<

-include $(objects:.o=.d)
