// Min-p: what is at least m times as probable as the most probable token.
#include <algorithm>
#include <cfloat>

#include "logarithm.h"
#include "stages/stage.h"

namespace fastsample {

namespace {

void run(Cutting& cutting, const double* value) {
  const double bound = double(cutting.row.max) + cutting.temperature * natural_log(value[0]);
  keep_floor(cutting, float(std::max(bound, double(-FLT_MAX))));
}

}  // namespace

extern const Stage kMinP;
const Stage kMinP = {{{"min_p", "in [0, 1]", [](double v) { return v >= 0.0 && v <= 1.0; }, 0.0}},
                     [](const double* value) { return value[0] == 0.0; },
                     run,
                     true};

}  // namespace fastsample
