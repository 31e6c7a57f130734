// Repetition penalty (CTRL, Keskar et al. 2019): the factor of every id in a window of the history,
// the prompt included.
#include "rules/rule.h"

namespace fastsample {

extern const Rule kRepetition;
const Rule kRepetition = {
    {{"repetition_penalty", "finite and > 0", [](double v) { return v > 0.0 && v <= DBL_MAX; },
      1.0},
     {"penalty_last_n", kLength, is_length, -1.0}},
    Rule::kNone,
    [](const Given& given) { return given.value[0] == 1.0 || given.value[1] == 0.0; },
    nullptr,
    [](const double* value, uint32_t, Edit& edit) { edit.factor *= value[0]; },
    nullptr,
    1,
    true};

}  // namespace fastsample
