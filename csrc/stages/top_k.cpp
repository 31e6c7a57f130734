// Top-k: the k largest values, ties by rising id.
#include <algorithm>
#include <cfloat>
#include <cmath>

#include "stages/stage.h"

namespace fastsample {

namespace {

bool is_count(double v) { return v >= -1.0 && v <= DBL_MAX && v == std::floor(v); }

void run(Cutting& cutting, const double* value) {
  const size_t n = cutting.row.n;
  const size_t k = value[0] < double(n) ? std::max(size_t(value[0]), cutting.at_least) : n;
  if (k < n) keep_largest(cutting, k);
}

}  // namespace

extern const Stage kTopK;
const Stage kTopK = {{{"top_k", "-1, 0 or a whole number >= 1", is_count, 0.0}},
                     [](const double* value) { return value[0] <= 0.0; },
                     run,
                     true};

}  // namespace fastsample
