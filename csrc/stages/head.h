// The largest values of a list, in order.
#pragma once

#include <algorithm>
#include <functional>

#include "stages/stage.h"

namespace fastsample {

// Writes the n largest by falling value, or all where they are fewer; returns how many.
inline size_t largest_values(const Survivors& list, size_t n, float* x) {
  return size_t(std::partial_sort_copy(list.x, list.x + list.size, x, x + n, std::greater<>()) - x);
}

}  // namespace fastsample
