// Eta cutoff: tokens of probability e or more, or less where the entropy is high (Hewitt et al.
// 2022).
#include <algorithm>
#include <cmath>

#include "elementary.h"
#include "stages/stage.h"

namespace fastsample {

namespace {

void run(Cutting& cutting, const double* value) {
  const Sums sums = entropy_of(cutting);
  const double by_entropy = std::sqrt(value[0]) * exponential(-entropy_in_nats(sums));
  keep_weight(cutting, std::min(value[0], by_entropy) * in_units(sums.mass));
}

}  // namespace

extern const Stage kEtaCutoff;
const Stage kEtaCutoff = {
    {{"eta_cutoff", "in [0, 1)", [](double v) { return v >= 0.0 && v < 1.0; }, 0.0}},
    [](const double* value) { return value[0] == 0.0; },
    run,
    true};

}  // namespace fastsample
