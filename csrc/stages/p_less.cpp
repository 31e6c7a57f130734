// P-less: tokens at least as probable as a second draw repeats the first, q >= sum of q^2.
#include "stages/stage.h"

namespace fastsample {

namespace {

void run(Cutting& cutting, const double*) {
  // weight >= (sum of weight^2) / total
  const Sums sums = squares_of(cutting);
  keep_weight(cutting, in_units(sums.second) / in_units(sums.mass));
}

}  // namespace

extern const Stage kPLess;
const Stage kPLess = {{{"p_less", "0 or 1", [](double v) { return v == 0.0 || v == 1.0; }, 0.0}},
                      [](const double* value) { return value[0] == 0.0; },
                      run,
                      true};

}  // namespace fastsample
