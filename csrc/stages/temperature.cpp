// Temperature: divides the logits of what comes after it. 0 is greedy: the chain looks for it
// first.
#include <cfloat>

#include "stages/stage.h"

namespace fastsample {

namespace {

void run(Cutting& cutting, const double* value) { cutting.temperature = value[0]; }

}  // namespace

extern const Stage kTemperature;
const Stage kTemperature = {
    {{"temperature", "finite and >= 0", [](double v) { return v >= 0.0 && v <= DBL_MAX; }, 1.0},
     {"dynatemp_range", "0 in this version", [](double v) { return v == 0.0; }, 0.0},
     {"dynatemp_exponent", "finite", [](double v) { return v >= -DBL_MAX && v <= DBL_MAX; }, 1.0}},
    [](const double* value) { return value[0] == 1.0 && value[1] == 0.0; },
    run,
    false};

}  // namespace fastsample
