#include "softmax.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "elementary.h"
#include "lists/keys.h"

namespace fastsample {

namespace {

// 1 / temperature times a factor, as far as exponentials of it are not all 0 or 1.
double over(double factor, double temperature) {
  return std::clamp(factor / temperature, double(FLT_MIN), double(FLT_MAX));
}

constexpr double kLog2E = 1.4426950408889634;

Exponent exponent_of(float max, double temperature) {
  // Below this `high` and what is subtracted from it fit into a float; from it on, whatever is not
  // too light is within a factor of 2 of the maximum, and the difference of the two is exact.
  constexpr double kLarge = 4096.0, kParts = 1024.0, kLightest = 96.0;
  const double scale = over(kLog2E, temperature);
  const double at = double(max) * scale;
  const bool large = !(std::abs(at) < kLarge);
  Exponent e;
  e.max = max;
  e.base = large ? max : 0.0f;
  e.scale = float(scale);
  e.scale_low = float(scale - double(e.scale));
  const double from = large ? 0.0 : at;
  e.high = float((std::floor(from * kParts) - 1.0) / kParts);
  e.low = float(from - double(e.high));
  const double least = std::max(double(max) - kLightest / scale, -double(FLT_MAX));
  e.least = float(least);
  if (double(e.least) < least) e.least = next_above(e.least);
  return e;
}

// ln of so many maxima and of the rest, whose lanes these are.
double log_of(size_t maxima, double* lanes) {
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return log_of_one_and(double(maxima - 1) + lanes[0]);
}

size_t count_maxima(const Row& row, const Kept& kept) {
  alignas(64) float scratch[kBlock];
  size_t count = 0;
  for (size_t b = 0; b < row.blocks; ++b) {
    if (row.block_max[b] != row.max) continue;
    const float* x = row.values(b, scratch);
    for (size_t i = 0; i < size_t(kBlock); ++i)
      count += x[i] == row.max && kept.has(x[i], b * kBlock + i);
  }
  return count;
}

// The sums of a list, whose ids rise, in the order that a row has.
void add_list(const Kernels* kernels, const Exponent& exponent, Survivors& list,
              Buffer<float>& exponentials, double* lanes) {
  float* w = exponentials.reserve(list.size + kSlack);
  list.pad();
  kernels->exponentials(list.x, list.size, exponent, w);
  for (size_t i = 0; i < list.size;) {
    const int block = list.ids[i] / kBlock;
    size_t end = i + 1;
    while (end < list.size && list.ids[end] / kBlock == block) ++end;
    if (end == i + 1) {
      lanes[list.ids[i] % kLanes] += double(w[i]);
    } else if (end == i + 2) {  // whose sum has but one order
      const int a = list.ids[i] % kLanes, b = list.ids[i + 1] % kLanes;
      lanes[a] += double(a == b ? w[i] + w[i + 1] : w[i]);
      if (a != b) lanes[b] += double(w[i + 1]);
    } else {
      float all[kBlock] = {};
      for (size_t k = i; k < end; ++k) all[list.ids[k] % kBlock] = w[k];
      // Neighbours into every second place of a lane, pairs of these into every fourth, ...
      for (int step = kLanes; step < kBlock; step *= 2)
        for (int at = 0; at < kBlock; at += 2 * step)
          for (int k = at; k < at + kLanes; ++k) all[k] += all[k + step];
      for (int k = 0; k < kLanes; ++k) lanes[k] += double(all[k]);
    }
    i = end;
  }
}

// Those of a stretch of the order. From the last tie on, values have to be above the threshold.
void add_stretch(const Row& row, const Kept& kept, const Exponent& exponent, double* lanes) {
  const float at_least = std::max(kept.tau, exponent.least);
  const float above = std::max(next_above(kept.tau), exponent.least);
  const size_t b = std::min(kept.last / kBlock, row.blocks);
  row.add_exponentials(0, b, exponent, at_least, lanes);
  if (b == row.blocks) return;
  alignas(64) float scratch[kBlock], some[kBlock];
  const float* x = row.values(b, scratch);
  for (size_t i = 0; i < size_t(kBlock); ++i)
    some[i] = kept.has(x[i], b * kBlock + i) ? x[i] : -INFINITY;
  const Scanned part{some, kBlock, row.block_max + b, 0};
  row.kernels->row[kF32].add_exponentials(part, exponent, exponent.least, lanes);
  row.add_exponentials(b + 1, row.blocks, exponent, above, lanes);
}

}  // namespace

void write_softmax(const Row& row, double temperature, float* out) {
  const double sum = row.own_ops().exponentials(row, row.max, over(kLog2E, temperature), out);
  row.kernels->multiply(out, row.n, float(1.0 / sum));
}

void write_log_softmax(const Row& row, double temperature, float* out) {
  row.own_ops().logarithms(row, row.max, over(1.0, temperature), -log_sum(row, temperature), out);
}

double log_sum(const Row& row, double temperature) {
  double lanes[kLanes] = {};
  const Exponent exponent = exponent_of(row.max, temperature);
  row.own_ops().add_exponentials(row, exponent, exponent.least, lanes);
  return log_of(count_maxima(row, {}), lanes);
}

double log_sum(const Row& row, const Kept& kept, double temperature, Workspace& workspace) {
  double lanes[kLanes] = {};
  const Exponent exponent = exponent_of(row.max, temperature);
  if (!kept.listed) {
    add_stretch(row, kept, exponent, lanes);
    return log_of(count_maxima(row, kept), lanes);
  }
  Survivors& list = workspace.survivors;
  add_list(row.kernels, exponent, list, workspace.exponentials, lanes);
  return log_of(row.kernels->count_at_least(list.x, list.size, row.max), lanes);
}

float log_probability(float x, float max, double temperature, double log_sum) {
  // +0, whichever zero the maximum is.
  return float(std::fma(double(x) - double(max), over(1.0, temperature), -log_sum)) + 0.0f;
}

}  // namespace fastsample
