// SPDX-License-Identifier: PostgreSQL
//
// A dispatcher takes over from one that has ended while the server went on.

#ifndef SLUICE_PG_POOL_SUCCESSION_HPP
#define SLUICE_PG_POOL_SUCCESSION_HPP

namespace sluice::pg {

// Ends the pooled backends of an earlier dispatcher and waits until they have
// gone; afterwards all backend slots are free.  To be called before anything
// else of the shared state is touched.
void end_earlier_backends();

}  // namespace sluice::pg

#endif
