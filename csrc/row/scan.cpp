#include "row/scan.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

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

ScanResult scan_patched(const Row& row, float* max) {
  ScanResult result{-INFINITY, INFINITY, false};
  const auto add = [&](ScanResult found) {
    result.max = std::max(result.max, found.max);
    result.lowest_max = std::min(result.lowest_max, found.lowest_max);
    result.suspect |= found.suspect;
  };
  const auto scan_stretches = [&](size_t first, size_t last) {
    for_stretches(row, first, last, [&](const Stretch& s) {
      // The scan of 16 bits writes maxima of a whole vector; what is behind comes later.
      if (s.ops) return add(s.ops->scan(s.data, s.n, max + s.b));
      std::fill_n(max + s.b, s.blocks, -INFINITY);
      add({-INFINITY, -INFINITY, false});
    });
  };
  // Blocks that are masked and whole are read in place.
  const Patch& patch = *row.patch;
  const size_t whole = patch.allowed() ? row.n / kBlock : 0;
  const auto in_place = [&](size_t b) {
    return b < whole && patch.state(b) == Patch::kCopied && patch.is_own_or_masked(b);
  };
  for (size_t b = 0; b < row.blocks;) {
    const bool here = in_place(b);
    size_t end = b + 1;
    while (end < row.blocks && in_place(end) == here) ++end;
    if (here)
      add(row.own_ops().scan_allowed(row.block(b), patch.allowed() + b * Patch::kWords, end - b,
                                     max + b));
    else
      scan_stretches(b, end);
    b = end;
  }
  if (result.lowest_max > -INFINITY || result.suspect) return result;
  for (size_t b = 0; b < row.blocks; ++b)
    if (max[b] == -INFINITY) row.patch->set(b, Patch::kEmpty);
  return result;
}

// A row of which only some values are edited: scanned as it is. Where edits only lower, a block's
// maximum is looked at again once it matters.
ScanResult scan_edited(const Row& row, float* max) {
  const ScanResult own = row.own_ops().scan(row.data, row.n, max);
  // What an edit may hide is left to a closer look.
  if (own.suspect || !std::isfinite(own.max)) return scan_patched(row, max);
  row.lowest_max = own.lowest_max;
  row.settled_from = INFINITY;
  for (size_t i = 0; i < row.patch->raising_count(); ++i) {
    const auto b = size_t(row.patch->raising()[i]);
    row.settle_block(b);
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
    patch->start(n, edits, allowed);
    row.patch = patch;
    result = allowed.limits(n) ? scan_patched(row, max) : scan_edited(row, max);
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
