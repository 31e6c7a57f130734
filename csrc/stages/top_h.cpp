// Top-h: as many of the 100 most probable tokens as make a share h of their entropy.
#include <algorithm>

#include "elementary.h"
#include "stages/head.h"

namespace fastsample {

namespace {

constexpr size_t kConsidered = 100;

void run(Cutting& cutting, const double* value) {
  keep_largest(cutting, std::max(kConsidered, cutting.at_least));
  float x[kConsidered];
  const size_t n = largest_values(cutting.list(), kConsidered, x);
  double weight[kConsidered], total = 0.0;
  for (size_t i = 0; i < n; ++i) {
    weight[i] = exponential(-(double(x[0]) - double(x[i])) / cutting.temperature);
    total += weight[i];
  }
  const double log_total = natural_log(total);
  double entropy[kConsidered], sum = 0.0;  // up to each
  for (size_t i = 0; i < n; ++i) {
    const double surprise = (double(x[0]) - double(x[i])) / cutting.temperature + log_total;
    if (weight[i] > 0.0) sum += weight[i] / total * surprise;
    entropy[i] = sum;
  }
  size_t count = 1;
  if (sum > 0.0)
    while (count < n && entropy[count] <= value[0] * sum) ++count;
  keep_largest(cutting, std::max(count, cutting.at_least));
}

}  // namespace

extern const Stage kTopH;
const Stage kTopH = {{{"top_h", "in [0, 1]", [](double v) { return v >= 0.0 && v <= 1.0; }, 0.0}},
                     [](const double* value) { return value[0] == 0.0; },
                     run,
                     true};

}  // namespace fastsample
