// Presence penalty: subtracted once where an id stands in a window of what follows the prompt.
#include "rules/rule.h"

namespace fastsample {

extern const Rule kPresence;
const Rule kPresence = {
    {{"presence_penalty", "finite", is_finite, 0.0}, {"penalty_last_n", kLength, is_length, -1.0}},
    Rule::kNone,
    [](const Given& given) { return given.value[0] == 0.0 || given.value[1] == 0.0; },
    nullptr,
    [](const double* value, uint32_t, Edit& edit) {
      edit.subtract = held(edit.subtract + value[0]);
    },
    nullptr,
    1};

}  // namespace fastsample
