#include "row/scan.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>

#include "row/stretches.h"

namespace fastsample {

namespace {

// The slow look at a row that may be bad: which defect it has first, and where.
void diagnose(Row& row) {
  alignas(64) float scratch[kBlock];
  size_t infinity_at = row.n;
  for (size_t b = 0; b < row.blocks; ++b) {
    const float* x = row.values(b, scratch);
    const size_t count = row.left(b) < size_t(kBlock) ? row.left(b) : size_t(kBlock);
    for (size_t i = 0; i < count; ++i) {
      if (std::isnan(x[i])) {
        row.defect = Defect::kNan;
        row.defect_at = b * kBlock + i;
        return;
      }
      if (x[i] == INFINITY && infinity_at == row.n) infinity_at = b * kBlock + i;
    }
  }
  if (infinity_at != row.n) {
    row.defect = Defect::kPositiveInfinity;
    row.defect_at = infinity_at;
    const float own = row.own_values(infinity_at / kBlock, scratch)[infinity_at % kBlock];
    if (own < INFINITY) {
      row.defect = Defect::kEditedTooFar;
      row.edited_to = row.patch->exactly(infinity_at, own);
    }
  } else if (row.max == -INFINITY) {
    row.defect =
        row.patch && row.patch->allows_none() ? Defect::kNothingAllowed : Defect::kNothingFinite;
  }
}

void add(ScanResult found, ScanResult& to) {
  to.max = std::max(to.max, found.max);
  to.lowest_max = std::min(to.lowest_max, found.lowest_max);
  to.suspect |= found.suspect;
}

constexpr ScanResult kNothingYet{-INFINITY, INFINITY, false};

// Every block as it is or by a copy of it.
ScanResult scan_stretches(const Row& row, float* max) {
  ScanResult result = kNothingYet;
  for_stretches(row, 0, row.blocks, [&](const Stretch& s) {
    // The scan of 16 bits writes maxima of a whole vector; what is behind comes later.
    if (s.ops) return add(s.ops->scan(s.data, s.n, max + s.b), result);
    std::fill_n(max + s.b, s.blocks, -INFINITY);
    add({-INFINITY, -INFINITY, false}, result);
  });
  if (result.lowest_max > -INFINITY || result.suspect) return result;
  for (size_t b = 0; b < row.blocks; ++b)
    if (max[b] == -INFINITY) row.patch->set(b, Patch::kEmpty);
  return result;
}

// Under a mask. Blocks that are whole and not edited are read in place.
ScanResult scan_masked(const Row& row, float* max) {
  const Patch& patch = *row.patch;
  ScanResult result = kNothingYet;
  for (size_t b = 0; b < row.blocks;) {
    size_t end = patch.has_edits() ? b : row.n / kBlock;
    while (end < row.blocks && patch.is_masked(end, row.n)) ++end;
    if (end > b) {
      add(row.own_ops().scan_allowed(row.data, patch.allowed(), patch.states(), b, end, max),
          result);
      b = end;
      continue;
    }
    for_stretches(row, b, b + 1, [&](const Stretch& s) {
      float of_block[1 + kSlack] = {-INFINITY};
      add(s.ops ? s.ops->scan(s.data, s.n, of_block) : ScanResult{-INFINITY, -INFINITY, false},
          result);
      max[b] = of_block[0];
    });
    ++b;
  }
  return result;
}

// The same where little is allowed: a list of all.
ScanResult list_masked(Row& row, float* max) {
  const Patch& patch = *row.patch;
  const int32_t* words = patch.used_words();
  const size_t count = patch.used_count();
  const auto block_of = [&](size_t i) { return size_t(words[i]) / kMaskWords; };
  const auto in_place = [&](size_t i) { return !patch.has_edits(block_of(i)); };
  std::fill_n(max, row.blocks, -INFINITY);
  row.few = row.patch->few_list();
  ScanResult result = kNothingYet;
  const auto append = [&](const RowKernels& ops, const Scanned& from, size_t i, size_t end) {
    add(ops.list_allowed(from, patch.allowed(), words + i, end - i, max, &row.few), result);
  };
  for (size_t i = 0; i < count;) {
    size_t end = patch.has_edits() ? i : count;
    while (end < count && in_place(end)) ++end;
    if (end > i) {
      append(row.own_ops(), row, i, end);
    } else {
      const size_t b = block_of(i);
      while (end < count && block_of(end) == b) ++end;
      for_stretches(row, b, b + 1, [&](const Stretch& s) { append(*s.ops, s, i, end); });
    }
    i = end;
  }
  constexpr size_t kAll = std::numeric_limits<size_t>::max();
  if (result.lowest_max == -INFINITY)
    row.few.size = row.kernels->keep(row.few.ids, row.few.x, nullptr, row.few.size, -FLT_MAX, kAll);
  return result;
}

// A row of which only some values are edited, or few are forbidden: scanned as it is. Where that
// only lowers, a block's maximum is looked at again once it matters.
ScanResult scan_to_settle(const Row& row, float* max) {
  const ScanResult own = row.own_ops().scan(row.data, row.n, max);
  // What an edit or the mask may hide is left to a closer look.
  if (own.suspect || !std::isfinite(own.max))
    return row.patch->allowed() ? scan_masked(row, max) : scan_stretches(row, max);
  row.lowest_max = own.lowest_max;
  row.settled_from = INFINITY;
  for (size_t i = 0; i < row.patch->raising_count(); ++i) {
    const auto b = size_t(row.patch->raising()[i]);
    row.settle_blocks(b, b + 1);
    if (max[b] == INFINITY) return {INFINITY, row.lowest_max, false};
  }
  float highest;
  do  // what is the largest yet may be lower
    highest = row.kernels->largest_below(max, row.blocks, INFINITY);
  while (row.settle(highest));
  return {highest, row.lowest_max, false};
}

}  // namespace

Row scan(const Kernels* kernels, RowType type, const void* data, size_t n, Buffer<float>& block_max,
         Patch* patch, const Edits& edits, const Allowed& allowed) {
  const size_t blocks = (n + kBlock - 1) / kBlock;
  // Not of 16 bits, which are scanned as integers, in other lanes.
  const bool lanes = blocks <= kShortRow && (type == kF32 || type == kF64);
  float* max = block_max.reserve(blocks + kSlack + (lanes ? blocks * kLanes : 0));
  float* lane_max = max + blocks + kSlack;
  const bool edited = edits.count > 0 || edits.table.blocks > 0;
  const bool patched = edited || allowed.limits(n);
  Row row{{data, n, max, 0}, kernels, type, blocks, 0.0f, 0.0f, Defect::kNone, 0, nullptr, nullptr};
  ScanResult result;
  if (patched) {
    patch->start(kernels, n, edits, allowed);
    row.patch = patch;
    const bool settled = allowed.limits(n) && !patch->allows_most(kernels);
    result = patch->few() ? list_masked(row, max)
             : settled    ? scan_masked(row, max)
                          : scan_to_settle(row, max);
  } else if (lanes) {
    result = row.own_ops().scan_lanes(data, n, max, lane_max);
    row.lane_max = lane_max;
  } else {
    result = row.own_ops().scan(data, n, max);
  }
  row.max = result.max;
  row.lowest_max = std::max(result.lowest_max, -FLT_MAX);
  if (result.suspect || !std::isfinite(result.max)) diagnose(row);
  return row;
}

}  // namespace fastsample
