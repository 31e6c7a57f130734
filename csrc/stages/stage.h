// What a stage is: a name, numbers, and what it keeps of a row. A stage is one file of this folder
// and one row of table.cpp; a file depends on this header, lists/ and elementary.h.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "fastsample.h"
#include "lists/kept.h"
#include "number.h"

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
  Row& row;
  Workspace& workspace;
  size_t at_least;           // no stage keeps fewer
  double u_xtc;              // the uniform of a coin
  const double* state;       // two numbers; null at the start
  Kept kept{};               // what is left so far,
  double temperature = 1.0;  // and what its logits are divided by: where 0, the chain ends
  double reweighted = 0.0;   // what the list weighed before a stage gave it other weights, or 0

  Survivors& list() const { return workspace.survivors; }
  Exp2 exp2() const { return {row.max, exp2_scale(temperature)}; }
};

struct Stage {
  Number numbers[4];
  // Whether these numbers do nothing.
  bool (*is_off)(const double* value);
  // Cuts what is kept, unless it is off.
  void (*run)(Cutting& cutting, const double* value);
  // Whether it keeps the first of the total order: only such stages can be joint.
  bool is_floor;
  // Of a stage with a state, two numbers of which it may need one: what it starts with, and what
  // becomes of it with the draw of a token of probability q. Else null.
  void (*start)(const double* value, double* state) = nullptr;
  void (*update)(const double* value, double q, double* state) = nullptr;
  int state_size = 0;
  bool positive = false;  // whether the second number of its state must be
};

// What weighs how much of what is kept, in units of 2^-kUnitBits of the largest: the sum of the
// weights w, and of -w log2 w or of w * w.
struct Sums {
  int64_t mass, second;
};
int64_t mass_of(Cutting& cutting);
// The entropy's pass over a row, if it is one, also writes what values >= tau weigh, per block.
Sums entropy_of(Cutting& cutting, float tau = INFINITY, int64_t* at_least = nullptr);
Sums squares_of(Cutting& cutting);

// In nats.
double entropy_in_nats(Sums sums);

// A sum of weights in units of the largest.
inline double in_units(int64_t sum) {
  static_assert(kUnitBits == 40, "2^-40 is a unit");
  return double(sum) * 0x1p-40;
}

// Whether what is kept is a list: sums over a row are of all of it, so that a stretch of the order,
// and a short row, is made one.
bool is_listed(Cutting& cutting);

// How many tokens are kept.
size_t count_of(Cutting& cutting);

// The value of which a token has so much weight, given as its logarithm; the largest weighs 1.
float value_of(const Cutting& cutting, double log_weight);

// Keeps the tokens of at least so much weight.
void keep_weight(Cutting& cutting, double weight);

// Keeps the values >= bound, and the largest ones that are missing to at_least.
void keep_floor(Cutting& cutting, float bound);

// Drops what a ceiling drops, but not all.
void drop_above(Cutting& cutting, Ceiling ceiling);

// What reaches p of a total: kReaches * p of it, in whole units.
inline int64_t share_of(double p, int64_t total) {
  const double share = kReaches * p * double(total);
  const auto below = int64_t(share);  // std::ceil is a slow call without SSE4.1
  const int64_t whole = below + (double(below) < share ? 1 : 0);
  return std::max(int64_t(1), std::min(whole, total));
}

// Lists what is before the place that is kept, unless that is much.
void list_if_short(Cutting& cutting);

// Lists the k largest of what is kept.
void keep_largest(Cutting& cutting, size_t k);

// Whether what is before this place in the total order are so many tokens or more.
bool has_at_least(const Row& row, const Kept& kept, size_t count);

}  // namespace fastsample
