#include "row/row.h"

#include <algorithm>
#include <cfloat>

#include "row/stretches.h"

namespace fastsample {

const float* Row::copy(size_t b, float scratch[kBlock]) const {
  if (patch->state(b) == Patch::kEmpty) {
    std::fill(scratch, scratch + kBlock, -INFINITY);
    return scratch;
  }
  own_ops().load(block(b), left(b), scratch);
  patch->apply(kernels, b, scratch);
  return scratch;
}

void Row::mass(Exp2 exp2, float tau, int64_t* all, int64_t* at_least) const {
  if (!patch) return own_ops().mass(*this, exp2, tau, all, at_least);
  for_stretches(*this, 0, blocks, [&](const Stretch& s) {
    int64_t* all_here = all ? all + s.b : nullptr;
    int64_t* at_least_here = at_least ? at_least + s.b : nullptr;
    if (s.ops) return s.ops->mass(s, exp2, tau, all_here, at_least_here);
    if (all) std::fill_n(all_here, s.blocks, int64_t(0));
    if (at_least) std::fill_n(at_least_here, s.blocks, int64_t(0));
  });
}

void Row::mass_of_blocks(size_t first, size_t last, Exp2 exp2, float tau, int64_t* at_least) const {
  if (first >= last) return;
  if (!patch) {
    const size_t end = last < blocks ? last * kBlock : n;
    const Scanned part{block(first), end - first * kBlock, block_max + first, first * kBlock};
    return own_ops().mass(part, exp2, tau, nullptr, at_least + first);
  }
  for_stretches(*this, first, last, [&](const Stretch& s) {
    if (s.ops) return s.ops->mass(s, exp2, tau, nullptr, at_least + s.b);
    std::fill_n(at_least + s.b, s.blocks, int64_t(0));
  });
}

void Row::entropy(Exp2 exp2, float tau, int64_t* all, int64_t* entropy, int64_t* at_least) const {
  if (!patch) return own_ops().entropy(*this, exp2, tau, all, entropy, at_least);
  for_stretches(*this, 0, blocks, [&](const Stretch& s) {
    int64_t* at_least_here = at_least ? at_least + s.b : nullptr;
    if (s.ops) return s.ops->entropy(s, exp2, tau, all + s.b, entropy + s.b, at_least_here);
    std::fill_n(all + s.b, s.blocks, int64_t(0));
    std::fill_n(entropy + s.b, s.blocks, int64_t(0));
    if (at_least) std::fill_n(at_least_here, s.blocks, int64_t(0));
  });
}

void Row::squares(Exp2 exp2, int64_t* all, int64_t* squares) const {
  if (!patch) return own_ops().squares(*this, exp2, all, squares);
  for_stretches(*this, 0, blocks, [&](const Stretch& s) {
    if (s.ops) return s.ops->squares(s, exp2, all + s.b, squares + s.b);
    std::fill_n(all + s.b, s.blocks, int64_t(0));
    std::fill_n(squares + s.b, s.blocks, int64_t(0));
  });
}

void Row::moments(Moments* moments) const {
  if (!patch) return own_ops().moments(*this, max, moments);
  for_stretches(*this, 0, blocks, [&](const Stretch& s) {
    if (s.ops) s.ops->moments(s, max, moments);
  });
}

size_t Row::count(float tau) const {
  if (!patch) return own_ops().count(*this, tau);
  size_t total = 0;
  for_stretches(*this, 0, blocks, [&](const Stretch& s) {
    if (s.ops) total += s.ops->count(s, tau);
  });
  return total;
}

size_t Row::mass_and_marks(Exp2 exp2, float tau, int64_t* all, Marks* marks) const {
  if (!patch) return own_ops().mass_and_marks(*this, exp2, tau, all, marks);
  size_t marked = 0;
  for_stretches(*this, 0, blocks, [&](const Stretch& s) {
    if (s.ops) {
      marked += s.ops->mass_and_marks(s, exp2, tau, all + s.b, marks + s.b);
    } else {
      std::fill_n(all + s.b, s.blocks, int64_t(0));
      std::fill_n(marks + s.b, s.blocks, Marks{});
    }
  });
  return marked;
}

size_t Row::collect_marked(const Marks* marks, size_t first, size_t last, int32_t* ids,
                           float* x) const {
  if (!patch) return own_ops().collect_marked(*this, marks, first, last, ids, x);
  size_t size = 0;
  for_stretches(*this, first, last, [&](const Stretch& s) {
    if (s.ops) size += s.ops->collect_marked(s, marks + s.b, 0, s.blocks, ids + size, x + size);
  });
  return size;
}

namespace {

// Calls body(kernels, stretch, mask or null, list, its length) with parts of a list of blocks:
// those that are read in place, one after the other, and copies.
template <class Body>
void for_listed(const Row& row, const int32_t* list, size_t count, Body body) {
  if (!row.patch) return body(row.own_ops(), row, nullptr, list, count);
  for (size_t i = 0; i < count;) {
    size_t end = i;
    while (end < count && row.patch->is_own_or_masked(size_t(list[end]))) ++end;
    if (end > i) body(row.own_ops(), row, row.patch->allowed(), list + i, end - i);
    if (end < count) {
      const auto b = size_t(list[end]);
      for_stretches(row, b, b + 1, [&](const Stretch& s) {
        if (s.ops) body(*s.ops, s, nullptr, list + end, 1);
      });
      ++end;
    }
    i = end;
  }
}

}  // namespace

size_t Row::collect(const int32_t* list, size_t count, float low, float high, int32_t* ids,
                    float* x) const {
  size_t size = 0;
  for_listed(*this, list, count,
             [&](const RowKernels& ops, const Scanned& part, const uint32_t* allowed,
                 const int32_t* blocks, size_t some) {
               size += ops.collect(part, allowed, blocks, some, low, high, ids + size, x + size);
             });
  return size;
}

size_t Row::lane_maxima(const int32_t* list, size_t count, size_t together, float* maxima) const {
  size_t size = 0;
  for_listed(*this, list, count,
             [&](const RowKernels& ops, const Scanned& part, const uint32_t* allowed,
                 const int32_t* blocks, size_t some) {
               ops.lane_maxima(part, allowed, blocks, some, together, maxima + size);
               size += (some + together - 1) / together * kLanes;
             });
  return size;
}

void Row::add_exponentials(size_t first, size_t last, const Exponent& exponent, float tau,
                           double* lanes) const {
  if (first >= last) return;
  if (!patch) {
    const size_t end = last < blocks ? last * kBlock : n;
    const Scanned part{block(first), end - first * kBlock, block_max + first, first * kBlock};
    return own_ops().add_exponentials(part, exponent, tau, lanes);
  }
  for_stretches(*this, first, last, [&](const Stretch& s) {
    if (s.ops) s.ops->add_exponentials(s, exponent, tau, lanes);
  });
}

void Row::quotients(size_t first, size_t last, Exp2 exp2, float tau, double total,
                    float* out) const {
  if (!patch) return own_ops().quotients(*this, first, last, exp2, tau, total, out);
  for_stretches(*this, first, last, [&](const Stretch& s) {
    float* here = out + s.first;
    if (s.ops) return s.ops->quotients(s, 0, s.blocks, exp2, tau, total, here);
    std::fill_n(here, s.n, 0.0f);
  });
}

// What is sampled leads to guesses alone: values as they are in memory, below the maximum that is
// left of their block.
float Row::sample(size_t pieces, float* out) const { return own_ops().sample(*this, pieces, out); }

void Row::cut_above(Ceiling ceiling, Patch& unused) {
  if (!patch) {
    patch = &unused;
    patch->start(n);
  }
  patch->lower(ceiling);
  lowered = true;
  lane_max = nullptr;
  // The maxima are the workspace's: const to all but the scan and this.
  float* maxima = const_cast<float*>(block_max);
  max = -INFINITY;
  for (size_t b = 0; b < blocks; ++b) {
    if (ceiling.touches(maxima[b], b * kBlock, b * kBlock + kBlock - 1)) {
      patch->set(b, Patch::kCopied);
      alignas(64) float scratch[kBlock];
      kernels->row[kF32].scan(values(b, scratch), kBlock, maxima + b);
      if (maxima[b] == -INFINITY) patch->set(b, Patch::kEmpty);
    }
    max = std::max(max, maxima[b]);
    lowest_max = std::min(lowest_max, maxima[b]);
  }
  lowest_max = std::max(lowest_max, -FLT_MAX);
}

void Row::take_maxima(const float* x, const int32_t* ids, size_t n) {
  float* maxima = const_cast<float*>(block_max);
  lowered = true;
  lane_max = nullptr;
  max = -INFINITY;
  for (size_t i = 0; i < n; ++i) maxima[size_t(ids[i]) / kBlock] = -INFINITY;
  for (size_t i = 0; i < n; ++i) {
    float& of_block = maxima[size_t(ids[i]) / kBlock];
    of_block = std::max(of_block, x[i]);
    max = std::max(max, x[i]);
  }
}

}  // namespace fastsample
