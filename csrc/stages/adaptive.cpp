// Adaptive-p: draws tokens near a target probability, which follows what has been drawn. It keeps
// all, and gives them other weights. State: two sums, of the probabilities drawn and of how many,
// both decayed.
#include <algorithm>
#include <cmath>

#include "stages/stage.h"

namespace fastsample {

namespace {

constexpr double kWidth = 0.3, kSharpness = 10.0;

void start(const double* value, double* state) {
  state[0] = value[0] / (1.0 - value[1]);
  state[1] = 1.0 / (1.0 - value[1]);
}

void update(const double* value, double q, double* state) {
  state[0] = q + value[1] * state[0];
  state[1] = 1.0 + value[1] * state[1];
}

void run(Cutting& cutting, const double* value) {
  double state[2];
  start(value, state);
  if (cutting.state) std::copy(cutting.state, cutting.state + 2, state);
  const double aim = std::clamp(2.0 * value[0] - state[0] / state[1], 0.0, 1.0);
  Survivors& list = cutting.list();
  if (!cutting.kept.listed) make_list(cutting.row, cutting.kept, list);
  const auto total = double(mass_of(cutting));
  // All of them together weigh less than 2^62.
  int bits = 0;
  while (list.size >> bits) ++bits;
  const double unit = std::ldexp(1.0, std::min(61 - bits, 52));
  const Reweighing how{1.0 / total, aim, kWidth, kSharpness / kWidth, unit};
  int64_t* before = cutting.workspace.before.reserve(list.size);
  cutting.row.kernels->reweigh(list.weight, list.size, how, before);
  cutting.reweighted = total;
}

}  // namespace

extern const Stage kAdaptive;
const Stage kAdaptive = {
    {{"adaptive_target", "in [0, 1]", [](double v) { return v >= 0.0 && v <= 1.0; }, 0.0},
     {"adaptive_decay", "in [0, 0.99]", [](double v) { return v >= 0.0 && v <= 0.99; }, 0.9}},
    [](const double* value) { return value[0] == 0.0; },
    run,
    false,
    start,
    update,
    2,
    true};

}  // namespace fastsample
