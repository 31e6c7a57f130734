// A guess at the distribution of a row's values, from a small part of it. Nothing that is drawn
// depends on it: it only tells the search for a cut where to look first.
#pragma once

#include "row/scan.h"

namespace fastsample {

class Histogram {
 public:
  // What it is asked for: how many values there are, or what they weigh.
  enum Aim { kCount, kMass };
  // Values lighter than 2^kLightest of the maximum are all taken for such ones.
  Histogram(const Row& row, Exp2 exp2, Aim aim);

  // The logarithm of the total, where the largest value weighs 1, and the entropy: in nats.
  struct Summary {
    double log_total, entropy;
  };
  Summary summary() const;
  // What all weigh together, as `around` counts.
  double mass() const;
  // A value of the row near which the mass of what is above reaches p of the total.
  float reaching(double p) const;
  // The highest value, a bin's edge, such that about `count` values reach it.
  float with_count(double count) const;
  // Such that values between it and x weigh about so many units; never NaN.
  float below(float x, double mass_between) const;
  float above(float x, double mass_between) const;
  // What the values weigh that one of the sample at x stands for.
  double mass_of_sample(float x) const;
  // Walks away from a value, both ways at the same pace, until values that weigh so much have been
  // passed or so far has been gone.
  struct Around {
    double mass;
    float radius;
  };
  Around around(float centre, double mass, float radius) const;
  // About how many values are in [low, high).
  double count(float low, float high) const;

 private:
  int bin(float x) const;
  double mass_within(int i, float bottom, float top) const;
  void count_bins(const Kernels* kernels, const float* x, size_t n, float* count);
  void trust_maxima(const float* maxima, const float* sampled, size_t blocks);
  float edge(int i) const { return low_ + (float(i) - 1.5f) / per_unit_; }

  Exp2 exp2_;
  float each_;  // how many values one of the sample stands for
  float low_, per_unit_;
  float count_[kBins];  // expected number of values
  float any_[kBins];    // one of them
  float mass_[kBins];   // what they weigh; not with kCount
};

}  // namespace fastsample
