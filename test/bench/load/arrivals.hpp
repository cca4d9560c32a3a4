// SPDX-License-Identifier: PostgreSQL
//
// When requests are meant to start: instants drawn in advance from nothing but the seed, so that no answer of the
// server can move them.  That is what makes a loop "open".
//
// The rate is constant but for bursts.  Both kinds of arrivals come from the same idea: the area below the rate, from
// one arrival to the next, is 1 (constant) or exponentially distributed with mean 1 (Poisson).

#ifndef SLUICE_BENCH_LOAD_ARRIVALS_HPP
#define SLUICE_BENCH_LOAD_ARRIVALS_HPP

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

namespace load {

// 0 <= result < 1; the same on every machine, which std::uniform_real_distribution does not promise.
inline double uniform(std::mt19937_64 &dice) { return static_cast<double>(dice() >> 11) * 0x1.0p-53; }

// Another rate (per second) for a while; seconds from the start of the run, warm-up included.
struct Burst {
  double rate;
  double begin_s;
  double end_s;
};

class Arrivals {
 public:
  Arrivals(bool poisson, double rate, const std::vector<Burst> &bursts, uint64_t seed)
      : poisson_(poisson), rate_(rate), bursts_(bursts), dice_(seed) {}

  // The next intended start, in nanoseconds from the start of the run.
  int64_t next_ns() {
    double area = poisson_ ? -std::log1p(-uniform(dice_)) : 1;
    for (;;) {
      double rate;
      double until;
      look(&rate, &until);
      if (rate > 0 && now_s_ + area / rate < until) {
        now_s_ += area / rate;
        return static_cast<int64_t>(now_s_ * 1e9);
      }
      area -= rate * (until - now_s_);
      now_s_ = until;
    }
  }

 private:
  // The rate at now_s_, and until when it holds.
  void look(double *rate, double *until) const {
    *rate = rate_;
    *until = HUGE_VAL;
    for (const Burst &burst : bursts_) {
      if (now_s_ >= burst.begin_s && now_s_ < burst.end_s) {
        *rate = burst.rate;
        *until = burst.end_s;
        return;
      }
      if (burst.begin_s > now_s_ && burst.begin_s < *until) *until = burst.begin_s;
    }
  }

  bool poisson_;
  double rate_;
  std::vector<Burst> bursts_;
  std::mt19937_64 dice_;
  double now_s_ = 0;
};

}  // namespace load

#endif
