// SPDX-License-Identifier: PostgreSQL
//
// How fast something may happen: a token bucket.
//
// A token grows each 1/rate seconds, the bucket holds `burst` of them, and each
// event takes one.  So a pause is made up for by a burst, and over any length of
// time t no more than burst + rate * t events happen.
//
// What is kept is not a number of tokens but the time at which the bucket would be
// full again (the "theoretical arrival time" of ATM's generic cell rate
// algorithm, ITU-T I.371): one number, whole nanoseconds, so that nothing is lost
// by rounding however often it is asked.  A rate above one per nanosecond is none.

#ifndef SLUICE_CORE_ACCEPT_TOKEN_BUCKET_HPP
#define SLUICE_CORE_ACCEPT_TOKEN_BUCKET_HPP

#include <cstdint>

namespace sluice {

class TokenBucket {
 public:
  // `per_second` of 0 or less: no limit.  A change begins with a full bucket; what is
  // in force already is no change.
  constexpr void set_rate(std::int64_t per_second, std::int64_t burst) noexcept {
    if (burst < 1) burst = 1;
    const std::int64_t gap_ns = per_second <= 0 ? 0 : kNanosecondsPerSecond / per_second;
    if (gap_ns == gap_ns_ && burst == burst_) return;
    gap_ns_ = gap_ns;
    burst_ = burst;
    full_at_ns_ = 0;  // full
  }

  // Takes a token if there is one.  The clock is monotonic.
  constexpr bool take(std::int64_t now_us) noexcept {
    if (gap_ns_ == 0) return true;
    if (wait_us(now_us) > 0) return false;
    const std::int64_t now_ns = now_us * 1000;
    full_at_ns_ = (full_at_ns_ > now_ns ? full_at_ns_ : now_ns) + gap_ns_;
    return true;
  }

  // Until there is a token; 0 when there is one.
  constexpr std::int64_t wait_us(std::int64_t now_us) const noexcept {
    if (gap_ns_ == 0) return 0;
    const std::int64_t token_at_ns = full_at_ns_ - (burst_ - 1) * gap_ns_;
    const std::int64_t left_ns = token_at_ns - now_us * 1000;
    return left_ns > 0 ? (left_ns + 999) / 1000 : 0;
  }

 private:
  static constexpr std::int64_t kNanosecondsPerSecond = 1'000'000'000;

  std::int64_t gap_ns_ = 0;  // between two tokens; 0 = no limit
  std::int64_t burst_ = 1;
  std::int64_t full_at_ns_ = 0;
};

}  // namespace sluice

#endif
