// SPDX-License-Identifier: PostgreSQL
#include "core/pool/nested_acquire.hpp"

#include "core/pool/shared_state.hpp"
#include "core/tuning/sizing.hpp"

namespace sluice {

namespace {

constexpr int kConnectionsPerThread = 2;

// FNV-1a, 64 bits.
class Hash {
 public:
  void add(std::uint8_t byte) noexcept { value_ = (value_ ^ byte) * 1099511628211ull; }
  std::uint64_t value() const noexcept { return value_ != 0 ? value_ : 1; }

 private:
  std::uint64_t value_ = 14695981039346656037ull;
};

}  // namespace

std::uint64_t identify_client(const ClientAddress &address, std::int32_t peer_pid, const char *application) noexcept {
  Hash hash;
  hash.add(address.family);
  for (const std::uint8_t byte : address.bytes) {
    hash.add(byte);
  }
  for (int shift = 0; shift < 32; shift += 8) {
    hash.add(static_cast<std::uint8_t>(static_cast<std::uint32_t>(peer_pid) >> shift));
  }
  for (std::size_t i = 0; i < kNameLength && application[i] != '\0'; i++) {
    hash.add(static_cast<std::uint8_t>(application[i]));
  }
  return hash.value();
}

NestedAcquireSearch::Group *NestedAcquireSearch::find(std::uint64_t identity) noexcept {
  for (std::size_t i = 0; i < count_; i++) {
    if (groups_[i].identity == identity) {
      return &groups_[i];
    }
  }
  return nullptr;
}

void NestedAcquireSearch::add_holder(std::uint64_t identity, std::uint32_t client, std::int64_t for_us) noexcept {
  if (for_us < least_for_us_) {
    least_for_us_ = for_us;
  }
  Group *group = find(identity);
  if (group == nullptr && count_ < kIdentities) {
    group = &groups_[count_++];
    *group = Group{identity, client, 0, 0};
  }
  if (group == nullptr) {
    too_many_ = true;
  } else {
    group->holders++;
  }
}

// An application that holds nothing waits for the others, and is of no interest.
bool NestedAcquireSearch::add_waiter(std::uint64_t identity) noexcept {
  Group *group = find(identity);
  if (group != nullptr) {
    group->waiters++;
  }
  return group != nullptr;
}

NestedAcquire NestedAcquireSearch::decide(std::int64_t patience_us) const noexcept {
  if (count_ == 0 || busy_ || too_many_ || least_for_us_ < patience_us) {
    return NestedAcquire{};
  }
  NestedAcquire answer;
  int most = 0;
  for (std::size_t i = 0; i < count_; i++) {
    const Group &group = groups_[i];
    if (group.waiters < group.holders) {
      return NestedAcquire{};
    }
    answer.threads += group.waiters;
    if (group.holders > most) {
      most = group.holders;
      answer.client = group.client;
    }
  }
  answer.probable = true;
  answer.for_us = least_for_us_;
  answer.minimum = static_cast<int>(deadlock_minimum(answer.threads, kConnectionsPerThread));
  return answer;
}

std::int64_t nested_patience_us(std::int64_t usual_thinking_us) noexcept {
  const std::int64_t patience_us =
      usual_thinking_us < INT64_MAX / 4 ? usual_thinking_us * kNestedPatienceFactor : INT64_MAX;
  return patience_us > kLeastNestedPatienceUs ? patience_us : kLeastNestedPatienceUs;
}

}  // namespace sluice
