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

bool Row::settle(float from) const {
  if (from >= settled_from) return false;
  int32_t* places = patch->block_places();
  const size_t count = kernels->places_within(block_max, blocks, from, settled_from, places);
  const auto is_due = [&](size_t b) { return patch->state(b) != Patch::kOwn; };
  bool changed = false;
  for (size_t i = 0; i < count;) {
    const auto first = size_t(places[i++]);
    if (!is_due(first)) continue;
    size_t last = first + 1;
    for (; i < count && size_t(places[i]) == last && is_due(last); ++i) ++last;
    changed |= settle_blocks(first, last);
  }
  settled_from = from;
  return changed;
}

bool Row::settle_blocks(size_t first, size_t last) const {
  // The maxima are the workspace's: const to all but the scan and what changes them here.
  float* maxima = const_cast<float*>(block_max);
  bool changed = false;
  for (size_t b = first; b < last;) {
    constexpr size_t kTogether = 64;
    float before[kTogether];
    size_t end = b;
    for (; end < last && end - b < kTogether && patch->is_masked(end, n); ++end)
      before[end - b] = maxima[end];
    if (end > b) {
      own_ops().scan_allowed(data, patch->allowed(), patch->states(), b, end, maxima);
    } else {
      before[0] = maxima[b];
      settle_copy(b, maxima + b);
      ++end;
    }
    for (size_t i = b; i < end; ++i) {
      changed |= maxima[i] != before[i - b];
      lowest_max = std::max(std::min(lowest_max, maxima[i]), -FLT_MAX);
      if (maxima[i] == -INFINITY) patch->set(i, Patch::kEmpty);
    }
    b = end;
  }
  return changed;
}

void Row::settle_copy(size_t b, float* max) const {
  alignas(64) float scratch[kBlock];
  const float after = patch->allowed() ? NAN : patch->max_after(b, own_values(b, scratch), *max);
  if (std::isnan(after))
    kernels->row[kF32].scan(values(b, scratch), kBlock, max);
  else
    *max = after;
}

void Row::mass(Exp2 exp2, float tau, int64_t* all, int64_t* at_least) const {
  settle();
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
  settle();
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
  settle();
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
  settle();
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
  settle();
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

size_t Row::collect(const int32_t* list, size_t count, float low, float high, int32_t* ids,
                    float* x) const {
  if (!patch) return own_ops().collect(*this, nullptr, list, count, low, high, ids, x);
  const uint32_t* allowed = patch->allowed();
  const bool unbounded = high == INFINITY;  // so that no edit brings a value within
  const auto in_place = [&](size_t b) {
    return unbounded ? patch->can_correct(b) : patch->is_own_or_masked(b);
  };
  size_t size = 0;
  for (size_t i = 0; i < count;) {
    size_t end = i;
    while (end < count && in_place(size_t(list[end]))) ++end;
    const size_t found =
        own_ops().collect(*this, allowed, list + i, end - i, low, high, ids + size, x + size);
    size += unbounded ? patch->correct(low, ids + size, x + size, found) : found;
    if (end < count) {
      const auto b = size_t(list[end]);
      for_stretches(*this, b, b + 1, [&](const Stretch& s) {
        if (s.ops)
          size += s.ops->collect(s, nullptr, list + end, 1, low, high, ids + size, x + size);
      });
      ++end;
    }
    i = end;
  }
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
  settle();
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
  settle();
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
  settled_from = -INFINITY;
  max = -INFINITY;
  for (size_t i = 0; i < n; ++i) maxima[size_t(ids[i]) / kBlock] = -INFINITY;
  for (size_t i = 0; i < n; ++i) {
    float& of_block = maxima[size_t(ids[i]) / kBlock];
    of_block = std::max(of_block, x[i]);
    max = std::max(max, x[i]);
  }
}

}  // namespace fastsample
