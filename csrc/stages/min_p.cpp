// Min-p: what is at least m times as probable as the most probable token.
#include "stages/stage.h"

namespace fastsample {

namespace {

void run(Cutting& cutting, const double* value) { keep_weight(cutting, value[0]); }

}  // namespace

extern const Stage kMinP;
const Stage kMinP = {{{"min_p", "in [0, 1]", [](double v) { return v >= 0.0 && v <= 1.0; }, 0.0}},
                     [](const double* value) { return value[0] == 0.0; },
                     run,
                     true};

}  // namespace fastsample
