// Values by how far their surprise is from the entropy.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

#include "lists/keys.h"

namespace fastsample {

struct Interval {
  float low = INFINITY, high = -INFINITY;

  bool empty() const { return low > high; }
  bool has(float x) const { return (x >= low) & (x <= high); }
  void include(float x) {
    low = std::min(low, x);
    high = std::max(high, x);
  }
  void include(Interval other) {
    low = std::min(low, other.low);
    high = std::max(high, other.high);
  }
};

// Halfway between two distances in the order of floats.
inline double halfway(double a, double b) {
  int64_t low, high;
  a = std::max(a, 0.0);
  std::memcpy(&low, &a, sizeof low);
  std::memcpy(&high, &b, sizeof high);
  const int64_t middle = low + (high - low) / 2;
  std::memcpy(&a, &middle, sizeof a);
  return a;
}

class Band {
 public:
  Band(float max, double temperature, double log_total, double entropy)
      : max_(max), temperature_(temperature), log_total_(log_total), entropy_(entropy) {
    const double centre = double(max) + temperature * (log_total - entropy);
    centre_ = float(std::clamp(centre, -double(FLT_MAX), double(max)));
  }

  // Of these operations in this order, each rounded to float64: falling where x rises, or level.
  double excess(float x) const {
    return ((double(max_) - double(x)) / temperature_ + log_total_) - entropy_;
  }
  double distance(float x) const { return std::abs(excess(x)); }

  // A value near which distances are the least, and what distances are in values there.
  float centre() const { return centre_; }
  float to_radius(double distance) const {
    return float(std::clamp(distance * temperature_, 0.0, double(FLT_MAX)));
  }
  double to_distance(float radius) const { return double(radius) / temperature_; }

  // The values, up to the maximum, whose distance is at most, or less than, this.
  Interval within(double distance) const {
    return between(
        distance, [&](double e) { return e <= distance; }, [&](double e) { return e < -distance; });
  }
  Interval nearer(double distance) const {
    return between(
        distance, [&](double e) { return e < distance; }, [&](double e) { return e <= -distance; });
  }

 private:
  // From the first value that is not below to the last that is not above.
  template <class NotBelow, class Above>
  Interval between(double distance, NotBelow not_below, Above above) const {
    const float low = first_with(not_below, distance), beyond = first_with(above, -distance);
    if (low == INFINITY || low >= beyond) return {};
    return {low, beyond == INFINITY ? max_ : from_key(to_key(beyond) - 1)};
  }
  // The first value up to the maximum for which this holds, as it does from there on, or infinity.
  // Steps from where the excess should be so much grow until they are too long; then it is halved.
  template <class Holds>
  float first_with(Holds holds, double about) const {
    if (!holds(excess(max_))) return INFINITY;
    int64_t low = int64_t(to_key(-FLT_MAX)) - 1, high = to_key(max_);
    const double place = double(max_) - temperature_ * (about + entropy_ - log_total_);
    int64_t at = to_key(float(std::clamp(place, -double(FLT_MAX), double(max_)))) - 1;
    constexpr int64_t kLongest = int64_t(1) << 33;  // no two keys are as far apart
    for (int64_t step = 1; high - low > 1; step = std::min(8 * step, kLongest)) {
      if (at <= low || at >= high) at = low + (high - low) / 2;
      const bool there = holds(excess(from_key(int32_t(at))));
      (there ? high : low) = at;
      at += there ? -step : step;
    }
    return from_key(int32_t(high));
  }

  float max_;
  double temperature_, log_total_, entropy_;
  float centre_;
};

}  // namespace fastsample
