// Top-n-sigma: logits within s standard deviations of the largest, whatever the temperature (Tang
// et al. 2024).
#include <algorithm>
#include <cfloat>
#include <cmath>

#include "stages/stage.h"

namespace fastsample {

namespace {

void add_list(const Survivors& list, float max, Moments& moments) {
  for (size_t i = 0; i < list.size; ++i) {
    const double d = double(list.x[i]) - double(max);
    double &sum = moments.sum[list.ids[i] % Moments::kLanes],
           &squares = moments.squares[list.ids[i] % Moments::kLanes];
    sum += d;
    squares += d * d;
  }
  moments.count = list.size;
}

// Lanes by halves: the same tree everywhere.
double fold(double (&lanes)[Moments::kLanes]) {
  for (int half = Moments::kLanes / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

void run(Cutting& cutting, const double* value) {
  const Row& row = cutting.row;
  if (!cutting.kept.listed && !cutting.kept.whole_row())
    make_list(row, cutting.kept, cutting.list());
  Moments moments{};
  if (cutting.kept.listed)
    add_list(cutting.list(), row.max, moments);
  else
    row.moments(&moments);
  const auto n = double(moments.count);
  const double mean = fold(moments.sum) / n;
  const double variance = fold(moments.squares) / n - mean * mean;
  const double bound = double(row.max) - value[0] * std::sqrt(std::max(variance, 0.0));
  keep_floor(cutting, float(std::max(bound, double(-FLT_MAX))));
}

}  // namespace

extern const Stage kTopNSigma;
const Stage kTopNSigma = {
    {{"top_n_sigma", "finite", [](double v) { return v >= -DBL_MAX && v <= DBL_MAX; }, 0.0}},
    [](const double* value) { return value[0] <= 0.0; },
    run,
    true};

}  // namespace fastsample
