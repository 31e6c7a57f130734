#include "softmax.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "elementary.h"

namespace fastsample {

namespace {

// 1 / temperature times a factor, as far as exponentials of it are not all 0 or 1.
double over(double factor, double temperature) {
  return std::clamp(factor / temperature, double(FLT_MIN), double(FLT_MAX));
}

constexpr double kLog2E = 1.4426950408889634;

}  // namespace

void write_softmax(const Row& row, double temperature, float* out) {
  const double sum = row.own_ops().exponentials(row, row.max, over(kLog2E, temperature), out);
  row.kernels->multiply(out, row.n, float(1.0 / sum));
}

void write_log_softmax(const Row& row, double temperature, float* out) {
  const double sum = row.own_ops().exponentials(row, row.max, over(kLog2E, temperature), nullptr);
  const double log_sum = natural_log(std::ldexp(sum, -kLift));
  row.own_ops().logarithms(row, row.max, over(1.0, temperature), -log_sum, out);
}

}  // namespace fastsample
