#include "lists/histogram.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

namespace fastsample {

int Histogram::bin(float x) const {
  // Bin 0 takes what is not of interest: -inf, and what is below low_.
  float place = std::round((x - low_) * per_unit_ + 1.0f);
  place = place > 0.0f ? place : 0.0f;
  place = place < float(kBins - 1) ? place : float(kBins - 1);
  return int(place);
}

void Histogram::add(const Kernels* kernels, const float* x, size_t n, float each) {
  // Four counters in turn: neighbours are often alike, and one counter would wait for itself.
  uint32_t counters[kBins][4] = {};
  kernels->count_bins(x, n, low_, per_unit_, counters, any_);
  for (int i = 0; i < kBins; ++i) {
    const uint32_t* c = counters[i];
    count_[i] += each * float(c[0] + c[1] + c[2] + c[3]);
  }
}

Histogram::Histogram(const Row& row, Exp2 exp2, Aim aim) : exp2_(exp2) {
  // Some values out of each of many blocks; and all block maxima, since the mass of a peaked row is
  // in a few of them.
  constexpr size_t kMost = 128;
  const size_t pieces =
      std::min(row.blocks, aim == kCount ? kMost : std::clamp<size_t>(row.blocks / 4, 16, kMost));
  const size_t size = pieces * kSampled;
  each_ = float(row.n) / float(size);
  alignas(64) float sample[kMost * kSampled];
  low_ = row.sample(pieces, sample);
  low_ = std::max(std::min(low_, row.max), row.max + kLightest / exp2.scale);
  const float range = row.max - low_;
  // A range of nothing, or beyond float32, has no use for bins.
  per_unit_ = range > 0.0f && range <= FLT_MAX ? std::min(float(kBins - 3) / range, FLT_MAX) : 1.0f;

  std::fill(count_, count_ + kBins, 0.0f);
  add(row.kernels, sample, size, each_);
  add(row.kernels, row.block_max, row.blocks, 1.0f);
  count_[0] = 0.0f;
  if (aim == kCount) return;
  // The weight of a bin's middle, by steps of four, which do not wait for each other.
  const double step = -double(exp2.scale) / double(per_unit_);
  double weight[4];
  for (int i = 0; i < 4; ++i) weight[i] = std::exp2(double(kUnitBits) + i * step);
  const double ratio = std::exp2(4 * step);
  for (int i = kBins - 1; i >= 0; --i) {
    double& w = weight[(kBins - 1 - i) % 4];
    mass_[i] = count_[i] * float(w);
    w *= ratio;
  }
}

float Histogram::reaching(double p) const {
  float total[4] = {};
  for (int i = 0; i < kBins; ++i) total[i % 4] += mass_[i];
  float tail = (1.0f - float(p)) * (total[0] + total[1] + total[2] + total[3]);
  for (int i = 0; i < kBins; ++i) {
    tail -= mass_[i];
    if (count_[i] > 0.0f && tail <= 0.0f) return any_[i];
  }
  return low_;  // which was sampled: not reached
}

float Histogram::with_count(double count) const {
  double seen = 0.0;
  for (int i = kBins - 1; i >= 0; --i) {
    seen += count_[i];
    if (seen >= count) return i > 1 ? edge(i) : -FLT_MAX;
  }
  return -FLT_MAX;
}

// Of a part of a bin.
double Histogram::mass_within(int i, float bottom, float top) const {
  return double(mass_[i]) * double(std::clamp((top - bottom) * per_unit_, 0.0f, 1.0f));
}

float Histogram::below(float x, double mass_between) const {
  float top = x;
  for (int i = bin(x); i > 0; --i) {
    const float bottom = edge(i);
    const double mass = mass_within(i, bottom, top);
    if (mass > mass_between) return top - (top - bottom) * float(mass_between / mass);
    mass_between -= mass;
    top = bottom;
  }
  return -FLT_MAX;
}

float Histogram::above(float x, double mass_between) const {
  float bottom = x;
  for (int i = bin(x); i < kBins; ++i) {
    const float top = edge(i + 1);
    const double mass = mass_within(i, bottom, top);
    if (mass > mass_between) return bottom + (top - bottom) * float(mass_between / mass);
    mass_between -= mass;
    bottom = top;
  }
  return INFINITY;
}

double Histogram::mass_of_sample(float x) const {
  const double y = (double(x) - double(exp2_.max)) * double(exp2_.scale);
  return double(each_) * std::exp2(double(kUnitBits) + y);
}

Histogram::Around Histogram::around(float centre, double mass, float radius) const {
  // By whole bins; what is below the first of interest has no weight.
  int down = bin(centre), up = down + 1;
  Around reached{0.0, 0.0f};
  while (down > 0 || up < kBins) {
    const float below = down > 0 ? centre - edge(down) : INFINITY;
    const float above = up < kBins ? edge(up + 1) - centre : INFINITY;
    const float next = std::max(std::min(below, above), reached.radius);
    if (!(next <= radius)) break;
    reached.radius = next;
    reached.mass += below <= above ? double(mass_[down--]) : double(mass_[up++]);
    if (reached.mass >= mass) return reached;
  }
  if (radius < INFINITY) reached.radius = std::max(reached.radius, radius);
  return reached;
}

double Histogram::count(float low, float high) const {
  double seen = 0.0;
  for (int i = bin(low); i <= bin(high); ++i) seen += count_[i];
  return seen;
}

}  // namespace fastsample
