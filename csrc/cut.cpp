#include "cut.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <numeric>

#include "elementary.h"
#include "lists/keys.h"
#include "lists/search.h"
#include "stages/params.h"
#include "stages/top_k.h"
#include "stages/top_p.h"

namespace fastsample {

namespace {

// Below this many tokens a list of all is faster than any search of the row.
constexpr size_t kSmallRow = 512;

float min_p_bound(const Row& row, double temperature, double min_p) {
  const double bound = double(row.max) + temperature * natural_log(min_p);
  return float(std::max(bound, double(-FLT_MAX)));
}

// A token of the row even if it changes under the call, and the value is gone.
size_t first_of(const Row& row, float value) {
  size_t b = 0;
  while (b + 1 < row.blocks && row.block_max[b] != value) ++b;
  alignas(64) float scratch[kBlock];
  const float* x = row.values(b, scratch);
  return std::min(b * kBlock + size_t(std::find(x, x + kBlock, value) - x), row.n - 1);
}

// About how many values reach tau, by 16 of the blocks that have any.
size_t expected_count(const Row& row, float tau) {
  size_t blocks = 0, looked_at = 0, found = 0;
  for (size_t b = 0; b < row.blocks; ++b) blocks += row.block_max[b] >= tau;
  for (size_t b = 0, skip = 0; b < row.blocks; ++b) {
    if (row.block_max[b] < tau) continue;
    if (skip > 0) {
      --skip;
      continue;
    }
    skip = blocks / 16;
    found += count_in_block(row, b, tau, INFINITY);
    ++looked_at;
  }
  return looked_at ? found * blocks / looked_at : 0;
}

bool has_at_least(const Row& row, const Kept& kept, size_t count) {
  if (count <= 1) return true;
  alignas(64) float scratch[kBlock];
  size_t seen = 0;
  for (size_t b = 0; b < row.blocks && seen < count; ++b) {
    if (row.block_max[b] < kept.tau) continue;
    const float* x = row.values(b, scratch);
    for (size_t i = 0; i < size_t(kBlock); ++i) seen += kept.has(x[i], b * kBlock + i);
  }
  return seen >= count;
}

}  // namespace

// ---- what is kept, by threshold ---------------------------------------------------------------

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

Cut cut(const Row& row, const fs_params& params, Workspace& workspace) {
  Survivors& list = workspace.survivors;
  list.clear();
  Kept kept;
  if (params.temperature == 0.0) {
    list.assign(first_of(row, row.max), row.max);
    kept.listed = true;
    return {kept, {row.max, exp2_scale(1.0)}};
  }

  const size_t at_least = std::min(size_t(params.min_tokens_to_keep), row.n);
  const auto list_largest = [&](Exp2 exp2, size_t k) {
    list_top_k(row, exp2, k, list);
    kept.listed = true;
  };
  double temperature = 1.0;
  for (const uint8_t* stage = params.order; stage != params.order + 8 && *stage; ++stage) {
    if (!is_active(params, *stage)) continue;
    const Exp2 exp2{row.max, exp2_scale(temperature)};
    switch (*stage) {
      case FS_STAGE_TEMPERATURE: temperature = params.temperature; break;

      case FS_STAGE_TOP_K: {
        const size_t k = std::min(std::max(size_t(params.top_k), at_least), row.n);
        if (kept.listed) {
          keep_top_k(row, list, k);
        } else if (k < row.n) {
          list_largest(exp2, k);
          list.keep(row, kept);
        }
        break;
      }

      case FS_STAGE_TOP_P:
        if (!kept.listed && row.n <= kSmallRow) make_list(row, kept, list);
        if (kept.listed) {
          list.weigh(row, exp2);
          keep_top_p(row, list, params.top_p, at_least);
        } else {
          cut_top_p(row, exp2, params.top_p, kept, workspace);
          if (kept.listed ? list.size < at_least : !has_at_least(row, kept, at_least))
            list_largest(exp2, at_least);
        }
        break;

      case FS_STAGE_MIN_P: {
        const float bound = min_p_bound(row, temperature, params.min_p);
        if (kept.listed) {
          if (row.kernels->count_at_least(list.x, list.size, bound) < at_least)
            keep_top_k(row, list, at_least);
          else
            list.keep(row, bound, kAllTies);
          break;
        }
        Kept narrower;
        narrower.tau = bound;
        if (!has_at_least(row, narrower, at_least)) {
          list_largest(exp2, at_least);
          list.keep(row, kept);
        } else if (bound > kept.tau) {
          kept = narrower;
          // Mostly few are left, and a list of them is cheaper than another pass over the row.
          kept.listed = expected_count(row, bound) < short_list(row);
          if (kept.listed) list.collect(row, bound, INFINITY, kAllTies, kNoLimit);
        }
        break;
      }
    }
  }
  return {kept, {row.max, exp2_scale(temperature)}};
}

}  // namespace fastsample
