#include "row/scan.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

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
  } else if (row.max == -INFINITY) {
    row.defect = Defect::kNothingFinite;
  }
}

}  // namespace

Row scan(const Kernels* kernels, RowType type, const void* data, size_t n,
         Buffer<float>& block_max) {
  const size_t blocks = (n + kBlock - 1) / kBlock;
  float* max = block_max.reserve(blocks + kSlack);
  Row row{{data, n, max}, kernels, type, blocks, 0.0f, 0.0f, Defect::kNone, 0};
  const ScanResult result = row.ops().scan(data, n, max);
  row.max = result.max;
  row.lowest_max = std::max(result.lowest_max, -FLT_MAX);
  if (result.suspect || !std::isfinite(result.max)) diagnose(row);
  return row;
}

}  // namespace fastsample
