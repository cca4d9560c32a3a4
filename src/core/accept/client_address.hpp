// SPDX-License-Identifier: PostgreSQL
//
// The address of one end of a connection, as a shape without the system's headers.

#ifndef SLUICE_CORE_ACCEPT_CLIENT_ADDRESS_HPP
#define SLUICE_CORE_ACCEPT_CLIENT_ADDRESS_HPP

#include <cstdint>

namespace sluice {

struct ClientAddress {
  std::uint8_t bytes[16];    // network order; the first four for IPv4
  std::uint16_t port;        // host order; 0 for a Unix socket
  std::uint8_t family;       // 0 unknown, 1 Unix socket, 4 IPv4, 6 IPv6
  std::uint8_t reserved;
};

}  // namespace sluice

#endif
