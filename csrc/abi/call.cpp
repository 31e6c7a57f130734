#include "abi/call.h"

#include <cfloat>

#include "abi/check.h"
#include "abi/words.h"

namespace fastsample {

Workspaces& workspaces() {
  thread_local Workspaces instance;
  return instance;
}

std::string& last_error() {
  thread_local std::string instance;
  return instance;
}

fs_status fail(fs_status status, const std::string& message) {
  last_error() = message;
  return status;
}

namespace {

// Value j of row i of float64 logits.
double float64_at(const fs_logits& logits, int64_t i, size_t j) {
  const int64_t size = element_size(FS_FLOAT64);
  const int64_t stride = logits.element_stride ? logits.element_stride : size;
  const uint64_t row = uint64_t(i) * uint64_t(logits.row_stride) * uint64_t(size);
  const char* at = static_cast<const char*>(logits.data) + ptrdiff_t(row) + int64_t(j) * stride;
  return *reinterpret_cast<const double*>(at);
}

}  // namespace

std::string describe(const Row& row, const fs_logits& logits, int64_t index) {
  const std::string where = "logits row " + std::to_string(index) + " must ";
  const std::string at = " at token " + std::to_string(row.defect_at);
  switch (row.defect) {
    case Defect::kNan: return where + "not contain NaN, got one" + at;
    case Defect::kPositiveInfinity:
      if (logits.dtype == FS_FLOAT64) {
        const double value = float64_at(logits, index, row.defect_at);
        if (value <= DBL_MAX) return where + "not go beyond float32, got " + show(value) + at;
      }
      return where + "not contain +inf, got one" + at;
    case Defect::kEditedTooFar:
      return where + "not be edited beyond float32, got " + show(row.edited_to) + at;
    case Defect::kNothingFinite: return where + "have a finite value, got only -inf";
    case Defect::kNothingAllowed: return where + "have an allowed token, got none";
    default: return where + "not change while it is sampled";
  }
}

}  // namespace fastsample
