// First room: one pass over a row of logits gives its summary, the maximum of every block.
#pragma once

#include "row/row.h"

namespace fastsample {

// `patch` is the workspace's, and used where there are edits or tokens that are not allowed.
Row scan(const Kernels* kernels, RowType type, const void* data, size_t n, Buffer<float>& block_max,
         Patch* patch = nullptr, const Edits& edits = {}, const Allowed& allowed = {});

}  // namespace fastsample
