// SPDX-License-Identifier: PostgreSQL
//
// What Boost asks of a program that is compiled without exceptions: functions to
// call instead of throwing.  Boost.Lockfree calls them only when a container is
// constructed with a bad size or cannot allocate, and pg_sluice's containers have
// their size at compile time and never allocate; so this is a bug, and the core
// dump should show where.

#include <boost/throw_exception.hpp>
#include <cstdlib>

namespace boost {

void throw_exception(std::exception const &) {
  std::abort();
}

void throw_exception(std::exception const &, boost::source_location const &) {
  std::abort();
}

}  // namespace boost
