// Epsilon cutoff: tokens of probability e or more (Hewitt et al. 2022).
#include "stages/stage.h"

namespace fastsample {

namespace {

void run(Cutting& cutting, const double* value) {
  keep_weight(cutting, value[0] * in_units(mass_of(cutting)));
}

}  // namespace

extern const Stage kEpsilonCutoff;
const Stage kEpsilonCutoff = {
    {{"epsilon_cutoff", "in [0, 1)", [](double v) { return v >= 0.0 && v < 1.0; }, 0.0}},
    [](const double* value) { return value[0] == 0.0; },
    run,
    true};

}  // namespace fastsample
