// XTC, exclude top choices: by a coin, of the tokens of probability t or more only the last stays.
#include <algorithm>
#include <cfloat>

#include "elementary.h"
#include "stages/stage.h"

namespace fastsample {

namespace {

void run(Cutting& cutting, const double* value) {
  if (!(cutting.u_xtc < value[0])) return;
  const double weight = value[1] * in_units(mass_of(cutting));
  const float bound = weight > 0.0 ? value_of(cutting, natural_log(weight)) : -FLT_MAX;
  Row& row = cutting.row;
  const Kept& kept = cutting.kept;
  if (bound > row.max) return;
  // The tokens that are probable enough.
  Survivors* probable = &cutting.list();
  if (!kept.listed) {
    probable = &cutting.workspace.base;
    probable->clear();
    probable->collect(row, std::max(bound, kept.tau), INFINITY, kAllTies, kNoLimit);
    probable->keep(row, kept);
  }
  size_t count = 0;
  float last = INFINITY;
  int32_t id = 0;
  for (size_t i = 0; i < probable->size; ++i) {
    const float x = probable->x[i];
    if (x < bound) continue;
    ++count;
    if (x <= last) id = probable->ids[i];
    last = std::min(last, x);
  }
  if (count < 2) return;
  if (cutting.at_least > 1 && count_of(cutting) - (count - 1) < cutting.at_least) return;
  drop_above(cutting, {last, size_t(id)});
}

}  // namespace

extern const Stage kXtc;
const Stage kXtc = {
    {{"xtc_probability", "in [0, 1]", [](double v) { return v >= 0.0 && v <= 1.0; }, 0.0},
     {"xtc_threshold", "in [0, 1]", [](double v) { return v >= 0.0 && v <= 1.0; }, 0.1}},
    [](const double* value) { return value[0] == 0.0; },
    run,
    false};

}  // namespace fastsample
