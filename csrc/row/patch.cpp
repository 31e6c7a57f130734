#include "row/patch.h"

#include <algorithm>

namespace fastsample {

void Patch::start(size_t n, Edits edits, Allowed allowed) {
  n_ = n;
  blocks_ = (n + kBlock - 1) / kBlock;
  std::fill_n(states_.reserve(blocks_), blocks_, uint8_t(kOwn));
  ceiling_ = {};
  edits_ = edits.count > 0;
  masked_ = allowed.word || allowed.size < n;
  if (masked_) copy_bits(allowed);
  if (edits_) sort_edits(edits);
}

// Counted, then placed: no comparisons, for there may be thousands.
void Patch::sort_edits(Edits edits) {
  uint32_t* starts = starts_.reserve(blocks_ + 2);
  std::fill_n(starts, blocks_ + 2, 0u);
  uint32_t* end = starts + 1;  // of a block, where the next of its edits goes
  for (size_t i = 0; i < edits.count; ++i) ++end[size_t(edits.edit[i].id) / kBlock + 1];
  for (size_t b = 1; b <= blocks_; ++b) end[b] += end[b - 1];
  Edit* sorted = sorted_.reserve(edits.count);
  values_.reserve(edits.count);
  for (size_t i = 0; i < edits.count; ++i) {
    const size_t b = size_t(edits.edit[i].id) / kBlock;
    sorted[end[b]++] = edits.edit[i];
    if (state(b) == kOwn) set(b, kCopied);
  }
}

void Patch::copy_bits(Allowed allowed) {
  const size_t words = blocks_ * kWords;
  const size_t ids = std::min(allowed.size, n_), whole = ids / 32;
  uint32_t* bits = bits_.reserve(words);
  if (allowed.word)
    std::copy(allowed.word, allowed.word + whole, bits);
  else
    std::fill(bits, bits + whole, ~0u);
  std::fill(bits + whole, bits + words, 0u);
  if (ids % 32) bits[whole] = ((1u << ids % 32) - 1) & (allowed.word ? allowed.word[whole] : ~0u);
  for (size_t b = 0; b < blocks_; ++b) {
    uint32_t all = ~0u, any = 0;
    for (size_t i = 0; i < kWords; ++i) {
      // The last block ends with the row: beyond, nothing is there that could be forbidden.
      const size_t id = b * kBlock + 32 * i, left = id < n_ ? n_ - id : 0;
      const uint32_t beyond = left >= 32 ? 0u : ~0u << left;
      all &= bits[b * kWords + i] | beyond;
      any |= bits[b * kWords + i];
    }
    set(b, !any ? kEmpty : ~all ? kCopied : kOwn);
  }
}

float Patch::edit(size_t b, const float* own, float max) {
  float highest = -INFINITY;
  bool lowered = false;
  for (uint32_t i = starts_.get()[b]; i < starts_.get()[b + 1]; ++i) {
    const Edit& edit = sorted_.get()[i];
    const float before = own[edit.id % kBlock], after = edited(edit, before);
    values_.get()[i] = after;
    highest = after > highest ? after : highest;
    lowered |= before == max;
  }
  return lowered && highest < max ? NAN : highest;
}

void Patch::apply(const Kernels* kernels, size_t b, float* x) const {
  if (edits_)
    for (uint32_t i = starts_.get()[b]; i < starts_.get()[b + 1]; ++i)
      x[sorted_.get()[i].id % kBlock] = values_.get()[i];
  if (masked_) kernels->clear_forbidden(bits_.get() + b * kWords, x);
  if (ceiling_.value == INFINITY) return;
  const float value = ceiling_.value;
  for (int i = 0; i < kBlock; ++i) x[i] = x[i] > value ? -INFINITY : x[i];
  const size_t first = b * kBlock;
  if (ceiling_.first <= first && ceiling_.last >= first + kBlock - 1) return;
  for (size_t i = 0; i < size_t(kBlock); ++i)
    if (ceiling_.drops(x[i], first + i)) x[i] = -INFINITY;
}

void Patch::lower(Ceiling ceiling) {
  if (ceiling.value > ceiling_.value) return;
  if (ceiling.value == ceiling_.value) {
    ceiling.first = std::max(ceiling.first, ceiling_.first);
    ceiling.last = std::min(ceiling.last, ceiling_.last);
  }
  ceiling_ = ceiling;
}

}  // namespace fastsample
