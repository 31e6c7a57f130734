// The tokens of a list that are nearest to the centre of a band.
#pragma once

#include "lists/band.h"
#include "lists/kept.h"

namespace fastsample {

// What is taken has to weigh so much, and to be so many.
struct Target {
  int64_t mass;
  size_t count;

  bool reached(int64_t m, size_t n) const { return m >= mass && n >= count; }
};

// All values of an interval, and some of those around it.
struct Nearest {
  Interval inner;
  const uint32_t* places;  // in the list, in the order in which they are taken
  size_t taken, count;     // the first so many of so many places

  bool takes_all() const { return taken == count; }
};

// By rising distance, then falling value, then rising id: the shortest prefix of a weighed list
// that reaches the target, or all of it. What it returns is the workspace's.
Nearest nearest_of(const Row& row, const Survivors& list, const Band& band, Target target,
                   Workspace& workspace);

}  // namespace fastsample
