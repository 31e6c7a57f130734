#include "lists/kept.h"

#include <algorithm>
#include <numeric>

#include "lists/keys.h"

namespace fastsample {

void weigh_block(const Row& row, const Kept& kept, Exp2 exp2, size_t b, int64_t weight[kBlock]) {
  alignas(64) float scratch[kBlock];
  const float* x = row.values(b, scratch);
  int32_t ids[kBlock];
  std::iota(ids, ids + kBlock, int32_t(b * kBlock));
  const size_t count = std::min(row.left(b), size_t(kBlock));
  row.kernels->weigh(x, ids, count, row.block_max, exp2, weight);
  std::fill(weight + count, weight + kBlock, int64_t(0));
  if (kept.whole_row()) return;
  row.kernels->clear_weights(x, ids, kBlock, kept.tau, kept.last, true, weight);
}

const int64_t* kept_mass(const Row& row, const Kept& kept, Exp2 exp2, Workspace& workspace) {
  int64_t* mass = workspace.block_mass.reserve(row.blocks);
  if (kept.scale == exp2.scale) return mass;
  if (kept.whole_row()) {
    row.mass(exp2, INFINITY, mass, nullptr);
    return mass;
  }
  row.mass(exp2, kept.tau, nullptr, mass);
  if (kept.last / kBlock < row.blocks) {
    // From the last tie on, values have to be above the threshold.
    int64_t* above = workspace.high_mass.reserve(row.blocks);
    row.mass(exp2, next_above(kept.tau), nullptr, above);
    const size_t b = kept.last / kBlock;
    std::copy(above + b, above + row.blocks, mass + b);
    int64_t weight[kBlock];
    weigh_block(row, kept, exp2, b, weight);
    mass[b] = std::accumulate(weight, weight + kBlock, int64_t(0));
  }
  return mass;
}

void make_list(const Row& row, Kept& kept, Survivors& list) {
  list.clear();
  list.collect(row, kept.tau, INFINITY, kAllTies, kNoLimit);
  list.keep(row, kept);
  kept.listed = true;
}

}  // namespace fastsample
