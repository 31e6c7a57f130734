// What a stage is: a name, numbers, and what it keeps of a row. A stage is one file of this folder
// and one row of table.cpp; a file depends on this header, lists/ and logarithm.h.
#pragma once

#include <cfloat>

#include "fastsample.h"
#include "lists/kept.h"

namespace fastsample {

// log2(e) / temperature as the kernels take it: never 0, which would give masked tokens mass, and
// never infinite.
inline float exp2_scale(double temperature) {
  const double scale = 1.4426950408889634 / temperature;
  if (scale < FLT_MIN) return FLT_MIN;
  if (scale > FLT_MAX) return FLT_MAX;
  return float(scale);
}

// A row on its way through the stages.
struct Cutting {
  const Row& row;
  Workspace& workspace;
  size_t at_least;           // no stage keeps fewer
  Kept kept{};               // what is left so far,
  double temperature = 1.0;  // and what its logits are divided by

  Survivors& list() const { return workspace.survivors; }
  Exp2 exp2() const { return {row.max, exp2_scale(temperature)}; }
};

// One number of a stage.
struct Number {
  const char* name = nullptr;         // null where the stage has no such number
  const char* requirement = nullptr;  // what `valid` asks for
  bool (*valid)(double) = nullptr;    // never true of NaN
  double off = 0.0;                   // where it does nothing, or the usual value
};

struct Stage {
  Number numbers[4];
  // Whether these numbers do nothing.
  bool (*is_off)(const double* value);
  // Cuts what is kept, unless it is off.
  void (*run)(Cutting& cutting, const double* value);
  // Whether it keeps the first of the total order: only such stages can be joint.
  bool is_floor;
};

// Keeps the values >= bound, and the largest ones that are missing to at_least.
void keep_floor(Cutting& cutting, float bound);

// Lists what is before the place that is kept, unless that is much.
void list_if_short(Cutting& cutting);

// Lists the k largest of what is kept.
void keep_largest(Cutting& cutting, size_t k);

// Whether what is before this place in the total order are so many tokens or more.
bool has_at_least(const Row& row, const Kept& kept, size_t count);

}  // namespace fastsample
