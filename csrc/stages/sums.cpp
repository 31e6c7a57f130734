// What stages ask of what is kept: how much it weighs, its entropy, how many it is.
#include <cfloat>
#include <numeric>

#include "elementary.h"
#include "stages/stage.h"

namespace fastsample {

namespace {

using WeighSecond = void (*)(const float*, const int32_t*, size_t, const float*, Exp2, int64_t*);

int64_t sum(const int64_t* x, size_t n) { return std::accumulate(x, x + n, int64_t(0)); }

Sums sums_of_list(Cutting& cutting, WeighSecond weigh) {
  Survivors& list = cutting.list();
  int64_t* terms = cutting.workspace.high_mass.reserve(list.size + kSlack);
  list.weigh(cutting.row, cutting.exp2());
  list.pad();
  weigh(list.x, list.ids, list.size, cutting.row.block_max, cutting.exp2(), terms);
  return {list.mass(cutting.row), sum(terms, list.size)};
}

// The masses of a row's blocks are kept for the draw.
template <class Second>
Sums sums_of_row(Cutting& cutting, Second second) {
  const Row& row = cutting.row;
  int64_t* mass = cutting.workspace.block_mass.reserve(row.blocks);
  int64_t* terms = cutting.workspace.high_mass.reserve(row.blocks);
  second(row, cutting.exp2(), mass, terms);
  cutting.kept.scale = cutting.exp2().scale;
  return {sum(mass, row.blocks), sum(terms, row.blocks)};
}

}  // namespace

bool is_listed(Cutting& cutting) {
  if (!cutting.kept.listed && (!cutting.kept.whole_row() || cutting.row.n <= kSmallRow))
    make_list(cutting.row, cutting.kept, cutting.list());
  return cutting.kept.listed;
}

int64_t mass_of(Cutting& cutting) {
  const Row& row = cutting.row;
  if (!cutting.kept.listed && row.n <= kSmallRow) make_list(row, cutting.kept, cutting.list());
  if (cutting.kept.listed) {
    cutting.list().weigh(row, cutting.exp2());
    return cutting.list().mass(row);
  }
  const int64_t* mass = kept_mass(row, cutting.kept, cutting.exp2(), cutting.workspace);
  cutting.kept.scale = cutting.exp2().scale;
  return sum(mass, row.blocks);
}

Sums entropy_of(Cutting& cutting, float tau, int64_t* at_least) {
  if (is_listed(cutting)) return sums_of_list(cutting, cutting.row.kernels->weigh_entropy);
  return sums_of_row(cutting, [&](const Row& row, Exp2 exp2, int64_t* mass, int64_t* terms) {
    row.entropy(exp2, tau, mass, terms, at_least);
  });
}

Sums squares_of(Cutting& cutting) {
  if (is_listed(cutting)) return sums_of_list(cutting, cutting.row.kernels->weigh_squares);
  return sums_of_row(cutting, [](const Row& row, Exp2 exp2, int64_t* mass, int64_t* terms) {
    row.squares(exp2, mass, terms);
  });
}

double entropy_in_nats(Sums sums) {
  return natural_log(in_units(sums.mass)) + kLn2 * (double(sums.second) / double(sums.mass));
}

size_t count_of(Cutting& cutting) {
  if (is_listed(cutting)) return cutting.list().size;
  return cutting.row.count(-FLT_MAX);
}

}  // namespace fastsample
