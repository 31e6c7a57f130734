// Logarithm, exponential and power in double, from correctly rounded operations alone: the same
// bits on every machine and in every backend, which the functions of <cmath> do not promise. No
// dependency.
#pragma once

#include <cmath>

namespace fastsample {

constexpr double kLn2 = 0.69314718055994531;

// 2 artanh(z) by its series. For |z| <= 0.172 12 terms leave less than 2^-60.
inline double twice_artanh(double z) {
  const double z2 = z * z;
  double series = 0.0;
  for (int k = 23; k >= 1; k -= 2) series = series * z2 + 1.0 / k;
  return 2.0 * z * series;
}

// ln(m) for m > 0. m = f * 2^e, ln f = 2 artanh((f - 1) / (f + 1)).
inline double natural_log(double m) {
  int e;
  double f = std::frexp(m, &e);
  if (f < 0.70710678118654752) {
    f *= 2.0;
    --e;
  }
  return e * kLn2 + twice_artanh((f - 1.0) / (f + 1.0));
}

// ln(1 + x) for x >= 0, with all digits of a small one.
inline double log_of_one_and(double x) {
  return x < 0.25 ? twice_artanh(x / (2.0 + x)) : natural_log(1.0 + x);
}

// 1 / k: a division would take longer than all else.
constexpr double kInverse[] = {0.0,      1.0,      1.0 / 2,  1.0 / 3,  1.0 / 4,
                               1.0 / 5,  1.0 / 6,  1.0 / 7,  1.0 / 8,  1.0 / 9,
                               1.0 / 10, 1.0 / 11, 1.0 / 12, 1.0 / 13, 1.0 / 14};

// e^x. x = n ln 2 + r, |r| <= 0.35: 14 terms of the series leave less than 2^-58. ln 2 in two
// parts, of which the first has so few bits that n times it is exact.
inline double exponential(double x) {
  if (!(x > -745.2)) return 0.0;
  if (x > 709.8) return HUGE_VAL;
  const double n = std::floor(x * 1.4426950408889634 + 0.5);
  const double r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
  double series = 1.0;
  for (int k = 14; k >= 1; --k) series = 1.0 + series * r * kInverse[k];
  return std::ldexp(series, int(n));
}

// base^e for base >= 0.
inline double power(double base, double e) {
  if (e == 0.0 || base == 1.0) return 1.0;
  if (!(base > 0.0)) return e > 0.0 ? 0.0 : HUGE_VAL;
  if (base == HUGE_VAL) return e > 0.0 ? HUGE_VAL : 0.0;
  return exponential(e * natural_log(base));
}

}  // namespace fastsample
