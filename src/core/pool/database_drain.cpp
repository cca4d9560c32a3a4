// SPDX-License-Identifier: PostgreSQL
#include "core/pool/database_drain.hpp"

namespace sluice {

DrainStep decide_drain(const DrainView &view) noexcept {
  const bool patient = view.waited_us < kDrainPatienceUs;
  if (view.clients > 0) {
    if (view.force && !view.clients_told) return DrainStep::tell_clients;
    return patient ? DrainStep::wait : DrainStep::refuse;
  }
  // What is still attached after so long is the server's to wait for, to count and to name.
  if (view.backends > 0) {
    if (!view.backends_told) return DrainStep::tell_backends;
    return patient ? DrainStep::wait : DrainStep::proceed;
  }
  if (!view.dispatcher_has_looked && patient) return DrainStep::ask_dispatcher;
  return DrainStep::proceed;
}

}  // namespace sluice
