// In place of csrc/histogram.cpp: guesses that are drawn by lot. What the library draws must not
// change by them, however long it takes.
#include <algorithm>
#include <cfloat>
#include <cmath>

#include "lists/histogram.h"
#include "lists/keys.h"

namespace fastsample {

namespace {

// SplitMix64 (Steele, Lea and Flood, 2014), one for each thread.
uint64_t random_word() {
  thread_local uint64_t state = 1;
  uint64_t z = state += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

double random_share() { return double(random_word() >> 11) * 0x1p-53; }

// Near the maximum, anywhere in the order of floats up to it, or at an end.
float random_value(Exp2 exp2) {
  const double depth = 60.0 * random_share() / double(exp2.scale);
  switch (random_word() % 6) {
    case 0: return -FLT_MAX;
    case 1: return exp2.max;
    case 2: {
      const int64_t lowest = to_key(-FLT_MAX), range = to_key(exp2.max) - lowest;
      return from_key(int32_t(lowest + int64_t(double(range) * random_share())));
    }
    default: return float(std::max(double(exp2.max) - depth, double(-FLT_MAX)));
  }
}

}  // namespace

Histogram::Histogram(const Row& row, Exp2 exp2, Aim) : exp2_(exp2) { low_ = row.lowest_max; }
float Histogram::reaching(double) const { return random_value(exp2_); }
float Histogram::with_count(double) const { return random_value(exp2_); }
float Histogram::below(float, double) const { return random_value(exp2_); }
float Histogram::above(float, double) const { return random_value(exp2_); }
Histogram::Summary Histogram::summary() const {
  return {40.0 * random_share(), 40.0 * random_share()};
}
double Histogram::mass() const { return 1e12 * random_share(); }
Histogram::Around Histogram::around(float, double, float) const {
  return {1e12 * random_share(), float(60.0 * random_share() / double(exp2_.scale))};
}
double Histogram::mass_of_sample(float) const { return 1e12 * random_share(); }
double Histogram::count(float, float) const {
  return random_word() % 3 ? 5000.0 * random_share() : 0.0;
}

}  // namespace fastsample
