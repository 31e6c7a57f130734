// Functions of double precision from correctly rounded operations alone: the same bits on every
// machine, and in the twin. Depends on nothing.
#pragma once

#include <cmath>

namespace fastsample {

// ln(m) for m > 0. m = f * 2^e, ln f = 2 artanh((f - 1) / (f + 1)) by its series;
// |z| <= 0.172, so 12 terms leave less than 2^-60.
inline double natural_log(double m) {
  int e;
  double f = std::frexp(m, &e);
  if (f < 0.70710678118654752) {
    f *= 2.0;
    --e;
  }
  const double z = (f - 1.0) / (f + 1.0), z2 = z * z;
  double series = 0.0;
  for (int k = 23; k >= 1; k -= 2) series = series * z2 + 1.0 / k;
  return e * 0.69314718055994531 + 2.0 * z * series;
}

}  // namespace fastsample
