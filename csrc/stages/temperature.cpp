// Temperature: divides the logits of what comes after it; dynatemp makes it follow the entropy of
// what is kept. T becomes lo + (hi - lo) * (H / ln n)^e, lo = max(0, T - r), hi = T + r, with H the
// entropy of the n tokens kept at T = 1. 0, set or computed, is greedy.
#include <algorithm>
#include <cfloat>

#include "elementary.h"
#include "stages/stage.h"

namespace fastsample {

namespace {

void run(Cutting& cutting, const double* value) {
  cutting.temperature = value[0];
  if (value[1] == 0.0) return;
  const size_t n = count_of(cutting);
  if (n < 2) return;
  cutting.temperature = 1.0;
  const double share = entropy_in_nats(entropy_of(cutting)) / natural_log(double(n));
  const double low = std::max(0.0, value[0] - value[1]);
  const double span = std::min(value[0] + value[1], DBL_MAX) - low;
  // The power may be infinite, and the span lost in rounding: together they would be no number.
  const double more = span > 0.0 ? span * power(share, value[2]) : 0.0;
  cutting.temperature = std::min(low + more, DBL_MAX);
}

}  // namespace

extern const Stage kTemperature;
const Stage kTemperature = {
    {{"temperature", "finite and >= 0", [](double v) { return v >= 0.0 && v <= DBL_MAX; }, 1.0},
     {"dynatemp_range", "finite and >= 0", [](double v) { return v >= 0.0 && v <= DBL_MAX; }, 0.0},
     {"dynatemp_exponent", "finite", [](double v) { return v >= -DBL_MAX && v <= DBL_MAX; }, 1.0}},
    [](const double* value) { return value[0] == 1.0 && value[1] == 0.0; },
    run,
    false};

}  // namespace fastsample
