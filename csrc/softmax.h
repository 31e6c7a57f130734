// Probabilities of a row's tokens at a temperature, and their logarithms: beside what is drawn
// from, which are integers, these have all digits of a float for the least probable token too.
#pragma once

#include "lists/kept.h"

namespace fastsample {

// Of the scan it needs the maximum alone, not those of blocks.
void write_softmax(const Row& row, double temperature, float* out);
void write_log_softmax(const Row& row, double temperature, float* out);

// ln of the sum of exp((x - max) / temperature), over the row as it came, or over what is kept of
// it. Right to 1e-6 of itself.
double log_sum(const Row& row, double temperature);
double log_sum(const Row& row, const Kept& kept, double temperature, Workspace& workspace);

// (x - max) / temperature - log_sum, rounded once.
float log_probability(float x, float max, double temperature, double log_sum);

}  // namespace fastsample
