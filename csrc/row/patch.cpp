#include "row/patch.h"

#include <algorithm>

namespace fastsample {

void Patch::start(const Kernels* kernels, size_t n, const Edits& edits, const Allowed& allowed) {
  n_ = n;
  blocks_ = (n + kBlock - 1) / kBlock;
  ceiling_ = {};
  table_ = edits.table;
  masked_ = allowed.limits(n);
  few_ = 0;
  uint8_t* states = states_.reserve(blocks_ + kMaskedTogether);
  std::fill_n(states, blocks_, uint8_t(masked_ ? kEmpty : kOwn));
  if (masked_) take_mask(kernels, allowed);
  if (edits.count) sort_edits(edits);
  table_.blocks = std::min(table_.blocks, blocks_);
  int32_t* raising = raising_.reserve(table_.blocks);
  raising_count_ = 0;
  for (size_t b = 0; b < table_.blocks; ++b) {
    if (has_edits(b) && state(b) == kOwn) set(b, kCopied);
    raising[raising_count_] = int32_t(b);
    raising_count_ += table_.block[b].raising ? 1 : 0;
  }
}

// Counted, then placed: no comparisons, for there may be thousands.
void Patch::sort_edits(const Edits& edits) {
  EditBlock* blocks = sorted_blocks_.reserve(blocks_);
  std::fill_n(blocks, blocks_, EditBlock{});
  for (size_t i = 0; i < edits.count; ++i) ++blocks[size_t(edits.edit[i].id) / kBlock].room;
  uint32_t begin = 0;
  for (size_t b = 0; b < blocks_; ++b) {
    blocks[b].begin = begin;
    begin += blocks[b].room;
  }
  Edit* sorted = sorted_.reserve(edits.count);
  uint8_t* places = places_.reserve(edits.count);
  for (size_t i = 0; i < edits.count; ++i) {
    const Edit& edit = edits.edit[i];
    EditBlock& block = blocks[size_t(edit.id) / kBlock];
    const size_t slot = block.begin + block.count++;
    sorted[slot] = edit;
    places[slot] = uint8_t(edit.id % kBlock);
    block.raising = uint16_t(block.raising + may_raise(edit));
  }
  table_ = {sorted, places, blocks, blocks_};
}

void Patch::take_mask(const Kernels* kernels, const Allowed& allowed) {
  const size_t ids = std::min(allowed.size, n_), whole = ids / kBlock;
  const size_t parts = blocks_ / kMaskedTogether + 1;
  uint32_t* bits = bits_.reserve(parts * kMaskedTogether * kMaskWords);
  uint64_t* used = used_.reserve(parts);
  std::fill_n(used, parts, uint64_t(0));
  if (allowed.word) {
    kernels->take_mask(allowed.word, whole, bits, states_.get(), used);
  } else {
    std::fill_n(bits, whole * kMaskWords, ~0u);
    std::fill_n(states_.get(), whole, uint8_t(kOwn));
    for (size_t b = 0; b < whole; ++b) use_words(b, 0xff);
  }
  if (ids % kBlock) take_last_of_mask(allowed.word, whole, ids);
  int32_t* words = words_.reserve(kFewAllowed + kSlack);
  used_count_ = kernels->list_words(used, parts, kFewAllowed, words);
  if (used_count_ > kFewAllowed) return;
  few_ = kernels->count_allowed(bits, words, used_count_);
  if (few_ > kFewAllowed) few_ = 0;
}

void Patch::use_words(size_t b, uint64_t which) {
  used_.get()[b / kMaskedTogether] |= which << b % kMaskedTogether * kMaskWords;
}

// The block in which the mask ends.
void Patch::take_last_of_mask(const uint32_t* words, size_t b, size_t ids) {
  uint32_t* bits = bits_.get() + b * kMaskWords;
  uint64_t used = 0;
  bool all = ids == n_;  // beyond the row nothing is there that could be forbidden
  for (size_t j = 0; j < kMaskWords; ++j) {
    const size_t i = b * kMaskWords + j, end = std::min(std::max(ids, 32 * i) - 32 * i, size_t(32));
    const uint32_t there = end ? ~0u >> (32 - end) : 0;
    bits[j] = there && words ? there & words[i] : there;
    used |= uint64_t(bits[j] != 0) << j;
    all &= bits[j] == there;
  }
  use_words(b, used);
  set(b, all ? kOwn : used ? kCopied : kEmpty);
}

bool Patch::allows_most(const Kernels* kernels) const {
  constexpr size_t kSampled = 64;
  int32_t words[kSampled];
  for (size_t i = 0; i < kSampled; ++i) {
    const size_t word = i * n_ / (32 * kSampled);
    if (state(word / kMaskWords) == kEmpty) return false;
    words[i] = int32_t(word);
  }
  return kernels->count_allowed(bits_.get(), words, kSampled) >= 30 * kSampled;
}

Listed Patch::few_list() {
  return {few_ids_.reserve(few_ + kSlack), few_x_.reserve(few_ + kSlack), 0};
}

float Patch::max_after(size_t b, const float* own, float max) const {
  const EditBlock& block = table_.block[b];
  const uint8_t* place = table_.place + block.begin;
  bool touched = false;
  for (size_t i = 0; i < block.count; ++i) touched |= own[place[i]] == max;
  if (!block.raising) return touched ? NAN : max;
  float highest = -INFINITY;
  for (size_t i = 0; i < block.count; ++i)
    highest = std::max(highest, edited(table_.edit[block.begin + i], own[place[i]]));
  return highest >= max ? highest : touched ? NAN : max;
}

// The edit of a token, or null.
const Edit* Patch::find(size_t id) const {
  if (!has_edits(id / kBlock)) return nullptr;
  const EditBlock& block = table_.block[id / kBlock];
  const uint8_t* place = table_.place + block.begin;
  const void* found = std::memchr(place, int(id % kBlock), block.count);
  if (!found) return nullptr;
  return table_.edit + block.begin + (static_cast<const uint8_t*>(found) - place);
}

double Patch::exactly(size_t id, float value) const {
  const Edit* edit = find(id);
  return edit ? edited_exactly(*edit, value) : value;
}

size_t Patch::correct(float low, int32_t* ids, float* x, size_t n) const {
  if (!table_.blocks) return n;
  size_t left = 0;
  for (size_t i = 0; i < n; ++i) {
    const Edit* edit = find(size_t(ids[i]));
    ids[left] = ids[i];
    x[left] = edit ? edited(*edit, x[i]) : x[i];
    left += x[left] >= low ? 1 : 0;
  }
  return left;
}

void Patch::apply(const Kernels* kernels, size_t b, float* x) const {
  if (has_edits(b)) {
    const EditBlock& block = table_.block[b];
    for (size_t i = block.begin; i < size_t(block.begin) + block.count; ++i)
      x[table_.place[i]] = edited(table_.edit[i], x[table_.place[i]]);
  }
  if (masked_) kernels->clear_forbidden(bits_.get() + b * kMaskWords, x);
  if (ceiling_.value == INFINITY) return;
  const float value = ceiling_.value;
  const size_t first = b * kBlock, last = first + kBlock - 1;
  if (ceiling_.first > last || ceiling_.last < first) {  // what is equal to it goes with the rest
    for (int i = 0; i < kBlock; ++i) x[i] = x[i] >= value ? -INFINITY : x[i];
    return;
  }
  for (int i = 0; i < kBlock; ++i) x[i] = x[i] > value ? -INFINITY : x[i];
  if (ceiling_.first <= first && ceiling_.last >= last) return;
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
