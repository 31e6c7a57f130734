// Probabilities of all of a row's tokens at a temperature, and their logarithms: beside what is
// drawn from, which are integers, these have all digits of a float for the least probable token
// too.
#pragma once

#include "row/scan.h"

namespace fastsample {

// Of the scan they need the maximum alone, not those of blocks.
void write_softmax(const Row& row, double temperature, float* out);
void write_log_softmax(const Row& row, double temperature, float* out);

}  // namespace fastsample
