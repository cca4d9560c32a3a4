// SPDX-License-Identifier: PostgreSQL
//
// What counts as one address when clients are counted by address.
//
// IPv4: the address.  IPv6: its first 64 bits, because that is the smallest network
// a host is given (RFC 4291, RFC 6177): whoever has one IPv6 address has 2^64 of
// them, and to count them one by one would be no limit.  An IPv4 address in IPv6
// clothes (::ffff:a.b.c.d) is the IPv4 address.  A Unix socket has no address;
// there the user at the other end takes its place, so that one local user cannot
// take what all others need, while an application server, which is one user, is
// what it is over TCP: one address.

#ifndef SLUICE_CORE_ACCEPT_ADDRESS_KEY_HPP
#define SLUICE_CORE_ACCEPT_ADDRESS_KEY_HPP

#include <cstdint>
#include <cstddef>
#include <type_traits>

#include "core/accept/client_address.hpp"

namespace sluice {

enum class AddressKind : std::uint64_t { ipv4 = 4, ipv6_network = 6, local_user = 1 };

// Two words without padding: to be hashed and compared as bytes.
struct AddressKey {
  AddressKind kind;
  std::uint64_t value;  // ipv4: host order; ipv6_network: the first eight bytes as a big-endian number; local_user: uid
};
static_assert(std::has_unique_object_representations_v<AddressKey>);

constexpr std::uint64_t read_big_endian(const std::uint8_t *bytes, std::size_t count) noexcept {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < count; i++) value = (value << 8) | bytes[i];
  return value;
}

// `local_uid`: of the peer, for a Unix socket.
constexpr AddressKey address_key(const ClientAddress &address, std::uint32_t local_uid) noexcept {
  if (address.family == 4) return {AddressKind::ipv4, read_big_endian(address.bytes, 4)};
  if (address.family != 6) return {AddressKind::local_user, local_uid};
  const bool is_mapped = read_big_endian(address.bytes, 8) == 0 && read_big_endian(address.bytes + 8, 4) == 0xffff;
  if (is_mapped) return {AddressKind::ipv4, read_big_endian(address.bytes + 12, 4)};
  return {AddressKind::ipv6_network, read_big_endian(address.bytes, 8)};
}

// How many clients of one address may be logging in at a time, of `all` that may.
// -1: nine tenths of them, so that a tenth is left for others whatever one address
// does, and an application server that connects all its clients at once meets
// nearly the same limit as without.  Below ten there is no such tenth.
// 0: no limit of its own.
constexpr std::int32_t unauthenticated_limit_of_address(std::int32_t setting, std::int32_t all) noexcept {
  if (setting > 0) return setting;
  return setting == 0 ? all : all - all / 10;
}

}  // namespace sluice

#endif
