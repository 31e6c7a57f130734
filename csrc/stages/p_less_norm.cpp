// P-less-norm: less than p-less asks for, q >= (n * sum of q^2 - 1) / (n - 1).
#include "stages/stage.h"

namespace fastsample {

namespace {

void run(Cutting& cutting, const double*) {
  const double n = double(count_of(cutting));
  if (n < 2.0) return;
  const Sums sums = squares_of(cutting);
  const double mass = in_units(sums.mass);
  keep_weight(cutting, (n * in_units(sums.second) / mass - mass) / (n - 1.0));
}

}  // namespace

extern const Stage kPLessNorm;
const Stage kPLessNorm = {
    {{"p_less_norm", "0 or 1", [](double v) { return v == 0.0 || v == 1.0; }, 0.0}},
    [](const double* value) { return value[0] == 0.0; },
    run,
    true};

}  // namespace fastsample
