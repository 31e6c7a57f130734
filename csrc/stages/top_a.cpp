// Top-a: tokens of at least a times the square of the largest probability.
#include "stages/stage.h"

namespace fastsample {

namespace {

void run(Cutting& cutting, const double* value) {
  // The largest weighs 1: q >= a * qmax^2 is weight >= a / total.
  keep_weight(cutting, value[0] / in_units(mass_of(cutting)));
}

}  // namespace

extern const Stage kTopA;
const Stage kTopA = {{{"top_a", "in [0, 1]", [](double v) { return v >= 0.0 && v <= 1.0; }, 0.0}},
                     [](const double* value) { return value[0] == 0.0; },
                     run,
                     true};

}  // namespace fastsample
