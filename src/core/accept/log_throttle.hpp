// SPDX-License-Identifier: PostgreSQL
//
// One line in the log for many events of a kind: the first is logged at once, and
// then at most one in each interval, which says how many were left out before it.

#ifndef SLUICE_CORE_ACCEPT_LOG_THROTTLE_HPP
#define SLUICE_CORE_ACCEPT_LOG_THROTTLE_HPP

#include <cstdint>

namespace sluice {

class LogThrottle {
 public:
  explicit constexpr LogThrottle(std::int64_t interval_us) noexcept : interval_us_(interval_us) {}

  struct Verdict {
    bool log;
    std::uint64_t left_out;  // events since the last line, this one not among them; if `log`
  };

  // An event happens now (monotonic).
  constexpr Verdict note(std::int64_t now_us) noexcept {
    if (logged_before_ && now_us - logged_us_ < interval_us_) {
      left_out_++;
      return Verdict{false, 0};
    }
    const Verdict verdict{true, left_out_};
    logged_before_ = true;
    logged_us_ = now_us;
    left_out_ = 0;
    return verdict;
  }

 private:
  std::int64_t interval_us_;
  std::int64_t logged_us_ = 0;
  std::uint64_t left_out_ = 0;
  bool logged_before_ = false;
};

}  // namespace sluice

#endif
