// Floats as integers of the same order.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace fastsample {

// -0 is just below +0.
inline int32_t to_key(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}
inline float from_key(int32_t key) {
  const int32_t bits = key ^ ((key >> 31) & 0x7fffffff);
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline float next_above(float x) {
  return x == FLT_MAX ? INFINITY : from_key(to_key(x + 0.0f) + 1);
}

}  // namespace fastsample
