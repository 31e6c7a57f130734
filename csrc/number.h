// A number that a stage or a rule is given: its name and what it may be. No dependency.
#pragma once

#include <cfloat>

namespace fastsample {

struct Number {
  const char* name = nullptr;         // null where there is no such number
  const char* requirement = nullptr;  // what `valid` asks for
  bool (*valid)(double) = nullptr;    // never true of NaN
  double off = 0.0;                   // where it does nothing, or the usual value
};

inline bool is_finite(double v) { return v >= -DBL_MAX && v <= DBL_MAX; }

// A whole number that is at least `least`, and no larger than a double can count to.
inline bool is_whole(double v, double least) {
  return v >= least && v <= 0x1p53 && v == double(static_cast<long long>(v));
}

}  // namespace fastsample
