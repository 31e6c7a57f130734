#include "histogram.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

namespace fastsample {

int Histogram::bin(float x) const {
  const float i = (x - low_) / step_;
  if (!(i > 0.0f)) return 0;
  return i < float(kBins - 1) ? int(i) : kBins - 1;
}

Histogram::Histogram(const Row& row, Exp2 exp2) {
  // 64 values out of each of 32 blocks spread over the row; and all block maxima, since the mass of
  // a peaked row is in a few of them.
  constexpr size_t kPieces = 32, kPiece = 64;
  const size_t pieces = std::min(row.blocks, kPieces);
  float sample[kPieces * kPiece];
  alignas(64) float scratch[kBlock];
  size_t size = 0;
  for (size_t i = 0; i < pieces; ++i) {
    const size_t b = i * row.blocks / pieces;
    const float* x = row.values(b, scratch) + i * kPiece % kBlock;
    for (size_t j = 0; j < kPiece; ++j)
      if (x[j] > -FLT_MAX && x[j] != row.block_max[b]) sample[size++] = x[j];
  }
  float lowest = row.max;
  for (size_t i = 0; i < size; ++i) lowest = std::min(lowest, sample[i]);
  for (size_t b = 0; b < row.blocks; ++b)
    if (row.block_max[b] > -FLT_MAX) lowest = std::min(lowest, row.block_max[b]);
  low_ = std::max(lowest, row.max - 42.0f / exp2.scale);
  step_ = std::max((row.max - low_) / float(kBins - 1), FLT_MIN);

  std::fill(count_, count_ + kBins, 0.0f);
  const float each = float(row.n) / float(pieces * kPiece);
  for (size_t i = 0; i < size; ++i) {
    const int at = bin(sample[i]);
    count_[at] += each;
    any_[at] = sample[i];
  }
  for (size_t b = 0; b < row.blocks; ++b) {
    const int at = bin(row.block_max[b]);
    count_[at] += 1.0f;
    any_[at] = row.block_max[b];
  }
  double weight = std::ldexp(1.0, kUnitBits);
  const double ratio = std::exp2(-double(step_) * double(exp2.scale));
  for (int i = kBins - 1; i >= 0; --i, weight *= ratio) weight_[i] = float(weight);
}

float Histogram::reaching(double p) const {
  double total = 0.0;
  for (int i = 0; i < kBins; ++i) total += double(count_[i]) * weight_[i];
  double tail = 0.0;
  for (int i = 0; i < kBins; ++i) {
    tail += double(count_[i]) * weight_[i];
    if (count_[i] > 0.0f && tail >= (1.0 - p) * total) return any_[i];
  }
  return any_[kBins - 1];
}

float Histogram::with_count(double count) const {
  double seen = 0.0;
  for (int i = kBins - 1; i >= 0; --i) {
    seen += count_[i];
    if (seen >= count) return edge(i);
  }
  return -FLT_MAX;
}

float Histogram::below(float x, double mass) const {
  double seen = 0.0;
  for (int i = bin(x) - 1; i >= 0; --i) {
    seen += double(count_[i]) * weight_[i];
    if (seen >= mass) return edge(i);
  }
  return -FLT_MAX;
}

float Histogram::above(float x, double mass) const {
  double seen = 0.0;
  for (int i = bin(x) + 1; i < kBins; ++i) {
    seen += double(count_[i]) * weight_[i];
    if (seen >= mass) return edge(i + 1);
  }
  return INFINITY;
}

double Histogram::count(float low, float high) const {
  double seen = 0.0;
  for (int i = bin(low); i <= bin(high); ++i) seen += count_[i];
  return seen;
}

float Histogram::middle(float low, float high) const {
  const int first = bin(low), last = bin(high);
  for (int i = (first + last) / 2; i <= last; ++i)
    if (count_[i] > 0.0f) return any_[i];
  return low;
}

}  // namespace fastsample
