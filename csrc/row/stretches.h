// A patched row as stretches that kernels can read: runs of its own blocks in place, and copies of
// others. Used by the row alone.
#pragma once

#include "row/row.h"

namespace fastsample {

struct Stretch : Scanned {
  const RowKernels* ops;  // null for blocks that have nothing
  size_t b, blocks;       // its first block, and how many they are
};

// Calls body for stretches that cover the blocks from `b` to `last` - 1.
template <class Body>
void for_stretches(const Row& row, size_t b, size_t last, Body body) {
  constexpr size_t kTogether = 8;  // copies at a time, which stay in the nearest cache
  alignas(64) float copies[kTogether * kBlock];
  while (b < last) {
    const Patch::State state = row.patch->state(b);
    size_t end = b + 1;
    const size_t most = state == Patch::kCopied ? b + kTogether : last;
    while (end < last && end < most && row.patch->state(end) == state) ++end;
    const size_t n = (end < row.blocks ? end * kBlock : row.n) - b * kBlock;
    if (state == Patch::kCopied)
      for (size_t i = b; i < end; ++i) row.values(i, copies + (i - b) * kBlock);
    const void* data = state == Patch::kOwn ? row.block(b) : copies;
    const RowKernels* ops[] = {&row.own_ops(), &row.kernels->row[kF32], nullptr};
    body(Stretch{{data, n, row.block_max + b, b * kBlock}, ops[state], b, end - b});
    b = end;
  }
}

}  // namespace fastsample
