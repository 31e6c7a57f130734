// Frequency penalty: subtracted as often as an id stands in a window of what follows the prompt.
#include "rules/rule.h"

namespace fastsample {

extern const Rule kFrequency;
const Rule kFrequency = {
    {{"frequency_penalty", "finite", is_finite, 0.0}, {"penalty_last_n", kLength, is_length, -1.0}},
    Rule::kNone,
    [](const Given& given) { return given.value[0] == 0.0 || given.value[1] == 0.0; },
    nullptr,
    [](const double* value, uint32_t times, Edit& edit) {
      edit.subtract = held(edit.subtract + held(value[0] * double(times)));
    },
    nullptr,
    1};

}  // namespace fastsample
