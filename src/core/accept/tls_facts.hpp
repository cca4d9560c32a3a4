// SPDX-License-Identifier: PostgreSQL
//
// What sluice.clients shows of an encrypted connection; the columns of
// pg_stat_ssl.  Beside the client's slot, because most clients have none.

#ifndef SLUICE_CORE_ACCEPT_TLS_FACTS_HPP
#define SLUICE_CORE_ACCEPT_TLS_FACTS_HPP

#include <cstdint>
#include <type_traits>

namespace sluice {

constexpr int kTlsNameLength = 64;  // as in pg_stat_ssl: longer names are cut

// Written by the dispatcher before the client enters its pool; good for the
// generation of the client's slot that has kClientTls in its flags.
struct alignas(64) TlsFacts {
  char version[16];
  char cipher[kTlsNameLength];
  std::int32_t bits;
  // Of the client's certificate; empty if it sent none.
  char client_dn[kTlsNameLength];
  char client_serial[kTlsNameLength];  // decimal
  char issuer_dn[kTlsNameLength];
};
static_assert(std::is_standard_layout_v<TlsFacts> && std::is_trivially_destructible_v<TlsFacts>);

}  // namespace sluice

#endif
