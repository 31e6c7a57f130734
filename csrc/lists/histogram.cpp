#include "lists/histogram.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <numeric>

#include "elementary.h"

namespace fastsample {

int Histogram::bin(float x) const {
  // Bin 0 takes what is not of interest: -inf, and what is below low_.
  float place = std::round((x - low_) * per_unit_ + 1.0f);
  place = place > 0.0f ? place : 0.0f;
  place = place < float(kBins - 1) ? place : float(kBins - 1);
  return int(place);
}

void Histogram::count_bins(const Kernels* kernels, const float* x, size_t n, float* count) {
  // Four counters in turn: neighbours are often alike, and one counter would wait for itself.
  uint32_t counters[kBins][4] = {};
  kernels->count_bins(x, n, low_, per_unit_, counters, any_);
  for (int i = 0; i < kBins; ++i) {
    const uint32_t* c = counters[i];
    count[i] = float(c[0] + c[1] + c[2] + c[3]);
  }
}

// Of large values the sample has few, and those that are not their block's maximum have much of the
// mass. Where values lie in no order, maxima tell how many these are: of the blocks that have none
// above a bin, so large a part has one in it as of all values there. (Nelson and Aalen's estimate.)
void Histogram::trust_maxima(const float* maxima, const float* sampled, size_t blocks) {
  float left = float(blocks), by_maxima = 0.0f, by_sample = 0.0f, seen = 0.0f;
  int first = kBins;
  float estimate[kBins];
  while (first > 1 && left > 0.25f * float(blocks)) {
    --first;
    const float here = maxima[first];
    estimate[first] = here * float(blocks) / (left - 0.5f * here);
    left -= here;
    by_maxima += estimate[first];
    by_sample += count_[first];
    seen += sampled[first];
  }
  // In an order they say something else than the sample, which then is right.
  if (std::abs(by_maxima - by_sample) > 3.0f * each_ * std::sqrt(seen + 1.0f)) return;
  std::copy(estimate + first, estimate + kBins, count_ + first);
}

Histogram::Histogram(const Row& row, Exp2 exp2, Aim aim) : exp2_(exp2) {
  // Some values out of each of many blocks; and all block maxima, since the mass of a peaked row is
  // in a few of them.
  constexpr size_t kMost = 128;
  const size_t pieces =
      std::min(row.blocks, aim == kCount ? kMost : std::clamp<size_t>(row.blocks / 2, 16, kMost));
  const size_t size = pieces * kSampled;
  each_ = float(row.n) / float(size);
  alignas(64) float sample[kMost * kSampled];
  low_ = row.sample(pieces, sample);
  low_ = std::max(std::min(low_, row.max), row.max + kLightest / exp2.scale);
  const float range = row.max - low_;
  // A range of nothing, or beyond float32, has no use for bins.
  per_unit_ = range > 0.0f && range <= FLT_MAX ? std::min(float(kBins - 3) / range, FLT_MAX) : 1.0f;

  float sampled[kBins], maxima[kBins];
  count_bins(row.kernels, sample, size, sampled);
  count_bins(row.kernels, row.block_max, row.blocks, maxima);
  for (int i = 0; i < kBins; ++i) count_[i] = each_ * sampled[i] + maxima[i];
  trust_maxima(maxima, sampled, row.blocks);
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

Histogram::Summary Histogram::summary() const {
  // The maximum is in the last bin but one, and weighs less than 2^kUnitBits there by one bin.
  const double nats = kLn2 * double(exp2_.scale) / double(per_unit_);
  double total = 0.0, surprise = 0.0;
  for (int i = 1; i < kBins; ++i) {
    total += double(mass_[i]);
    surprise += double(mass_[i]) * (kBins - 2 - i);
  }
  const double log_total = std::log(total) - kLn2 * kUnitBits + nats;
  return {log_total, log_total + nats * surprise / total};
}

double Histogram::mass() const { return std::accumulate(mass_ + 1, mass_ + kBins, 0.0); }

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
