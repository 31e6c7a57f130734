#include "row/patch.h"

#include <algorithm>
#include <cstring>

namespace fastsample {

void Patch::start(size_t n, const Edits& edits, const Allowed& allowed) {
  n_ = n;
  blocks_ = (n + kBlock - 1) / kBlock;
  std::fill_n(states_.reserve(blocks_), blocks_, uint8_t(kOwn));
  ceiling_ = {};
  table_ = edits.table;
  masked_ = allowed.limits(n);
  if (masked_) copy_bits(allowed);
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

void Patch::copy_bits(const Allowed& allowed) {
  const size_t words = blocks_ * kWords;
  const size_t ids = std::min(allowed.size, n_), whole = ids / 32;
  uint32_t* bits = bits_.reserve(words + 1);  // kernels read a word further
  bits[words] = 0;
  if (allowed.word)
    std::copy(allowed.word, allowed.word + whole, bits);
  else
    std::fill(bits, bits + whole, ~0u);
  std::fill(bits + whole, bits + words, 0u);
  if (ids % 32) bits[whole] = ((1u << ids % 32) - 1) & (allowed.word ? allowed.word[whole] : ~0u);
  uint8_t* states = states_.get();
  for (size_t b = 0; b < blocks_; ++b) {
    uint64_t w[kWords / 2];
    std::memcpy(w, bits + b * kWords, sizeof w);
    const uint64_t all = w[0] & w[1] & w[2] & w[3], any = w[0] | w[1] | w[2] | w[3];
    states[b] = uint8_t(!any ? kEmpty : ~all ? kCopied : kOwn);
  }
  // The last block ends with the row: beyond, nothing is there that could be forbidden.
  const size_t last = n_ - (blocks_ - 1) * kBlock, end = (blocks_ - 1) * kBlock;
  bool all = true;
  for (size_t i = 0; i < last; ++i) all &= (bits[(end + i) / 32] >> (end + i) % 32 & 1) != 0;
  if (all) states[blocks_ - 1] = kOwn;
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
  if (masked_) kernels->clear_forbidden(bits_.get() + b * kWords, x);
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

bool Patch::allows_none() const {
  const uint32_t* bits = bits_.get();
  return masked_ && std::all_of(bits, bits + blocks_ * kWords, [](uint32_t w) { return w == 0; });
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
