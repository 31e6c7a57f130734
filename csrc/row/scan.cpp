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

// Calls body for runs of what a mask leaves: blocks before `end` that are not edited together, each
// of the others alone. `others` is their stretch, or null.
template <class Body>
void for_used(const Row& row, size_t end, Body body) {
  const Patch& patch = *row.patch;
  const int32_t* used = patch.used();
  const size_t count = patch.used_count();
  const auto in_place = [&](size_t i) {
    return size_t(used[i]) < end && !patch.has_edits(size_t(used[i]));
  };
  for (size_t i = 0; i < count;) {
    size_t next = i;
    // Without edits, all but the last.
    if (!patch.has_edits() && count - i > 1) next = count - 1;
    while (next < count && in_place(next)) ++next;
    if (next > i) {
      body(used + i, next - i, nullptr);
      i = next;
      continue;
    }
    const auto b = size_t(used[i]);
    for_stretches(row, b, b + 1, [&](const Stretch& s) { body(used + i, 1, &s); });
    ++i;
  }
}

// Of a mask, what it leaves: blocks that are whole and not edited are read in place.
ScanResult scan_masked(const Row& row, float* max) {
  const Patch& patch = *row.patch;
  std::fill_n(max, row.blocks, -INFINITY);
  const bool all = patch.used_count() == row.blocks;
  ScanResult result{-INFINITY, all ? INFINITY : -INFINITY, false};
  for_used(row, row.n / kBlock, [&](const int32_t* blocks, size_t count, const Stretch* copy) {
    if (!copy)
      return add(row.own_ops().scan_allowed(row.data, patch.allowed(), blocks, count, max), result);
    float of_block[1 + kSlack];
    add(copy->ops->scan(copy->data, copy->n, of_block), result);
    max[copy->b] = of_block[0];
  });
  return result;
}

// The same where that is little: a list of all.
ScanResult list_masked(Row& row, float* max) {
  std::fill_n(max, row.blocks, -INFINITY);
  row.few = row.patch->few_list();
  ScanResult result = kNothingYet;
  for_used(row, row.blocks, [&](const int32_t* blocks, size_t count, const Stretch* copy) {
    const RowKernels& ops = copy ? *copy->ops : row.own_ops();
    const Scanned& from = copy ? static_cast<const Scanned&>(*copy) : row;
    add(ops.list_allowed(from, row.patch->allowed(), blocks, count, max, &row.few), result);
  });
  constexpr size_t kAll = std::numeric_limits<size_t>::max();
  if (result.lowest_max == -INFINITY)
    row.few.size = row.kernels->keep(row.few.ids, row.few.x, nullptr, row.few.size, -FLT_MAX, kAll);
  return result;
}

// A row of which only some values are edited: scanned as it is, and a block again only where what
// was its maximum is less now.
ScanResult scan_edited(const Row& row, float* max) {
  const ScanResult own = row.own_ops().scan(row.data, row.n, max);
  // What an edit may hide is left to a closer look.
  if (own.suspect || !std::isfinite(own.max)) return scan_stretches(row, max);
  alignas(64) float scratch[kBlock];
  ScanResult result{-INFINITY, INFINITY, false};
  for (size_t b = 0; b < row.blocks; ++b) {
    if (row.patch->has_edits(b)) {
      const float after = row.patch->max_after(b, row.own_values(b, scratch), max[b]);
      if (std::isnan(after))
        row.kernels->row[kF32].scan(row.values(b, scratch), kBlock, max + b);
      else
        max[b] = after;
    }
    result.max = std::max(result.max, max[b]);
    result.lowest_max = std::min(result.lowest_max, max[b]);
    if (max[b] == -INFINITY) row.patch->set(b, Patch::kEmpty);
  }
  return result;
}

}  // namespace

Row scan(const Kernels* kernels, RowType type, const void* data, size_t n, Buffer<float>& block_max,
         Patch* patch, const Edits& edits, Allowed allowed) {
  const size_t blocks = (n + kBlock - 1) / kBlock;
  float* max = block_max.reserve(blocks + kSlack);
  const bool edited = edits.count > 0 || edits.table.blocks > 0;
  const bool patched = edited || allowed.limits(n);
  Row row{{data, n, max, 0}, kernels, type, blocks, 0.0f, 0.0f, Defect::kNone, 0, nullptr};
  ScanResult result;
  if (patched) {
    patch->start(kernels, n, edits, allowed);
    row.patch = patch;
    result = patch->few()        ? list_masked(row, max)
             : allowed.limits(n) ? scan_masked(row, max)
                                 : scan_edited(row, max);
  } else {
    result = row.own_ops().scan(data, n, max);
  }
  row.max = result.max;
  row.lowest_max = std::max(result.lowest_max, -FLT_MAX);
  if (result.suspect || !std::isfinite(result.max)) diagnose(row);
  return row;
}

}  // namespace fastsample
