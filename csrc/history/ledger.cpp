#include "history/ledger.h"

#include <cstring>

namespace fastsample {

namespace {

constexpr Edit nothing(int32_t id) { return {id, 0, 1.0, 0.0, 0.0}; }

}  // namespace

Edit merged(const Edit& a, const Edit& b) {
  return {a.id, a.banned | b.banned, a.factor * b.factor, held(a.subtract + b.subtract),
          held(a.bias + b.bias)};
}

Ledger::Place Ledger::find(int32_t id) const {
  const size_t b = size_t(id) / kBlock;
  if (b >= blocks_.size() || !blocks_[b].count) return kNone;
  const uint8_t* first = places_.data() + blocks_[b].begin;
  const void* found = std::memchr(first, id % kBlock, blocks_[b].count);
  return found ? size_t(static_cast<const uint8_t*>(found) - places_.data()) : kNone;
}

Ledger::Place Ledger::touch(int32_t id) {
  const Place place = find(id);
  return place == kNone ? add(id) : place;
}

void Ledger::grow(size_t slots) {
  if (slots <= edits_.size()) return;
  slots = std::max(slots, 2 * edits_.size());
  // In this order, so that the first says how many all have.
  tallies_.resize(slots);
  places_.resize(slots);
  edits_.resize(slots);
}

void Ledger::reserve(size_t ids, size_t more) {
  const size_t blocks = (ids + kBlock - 1) / kBlock;
  if (blocks > blocks_.size()) blocks_.resize(blocks, EditBlock{});
  grow(used_ + more * kBlock);
}

Ledger::Place Ledger::add(int32_t id) {
  const size_t b = size_t(id) / kBlock;
  if (b >= blocks_.size()) blocks_.resize(b + 1, EditBlock{});
  EditBlock& block = blocks_[b];
  if (block.count == block.room) {
    // Runs double in place of being freed: what a block has left behind is less than what it has.
    const uint16_t room = block.room ? uint16_t(2 * block.room) : uint16_t(4);
    grow(used_ + room);
    std::copy_n(edits_.begin() + block.begin, block.count, edits_.begin() + ptrdiff_t(used_));
    std::copy_n(places_.begin() + block.begin, block.count, places_.begin() + ptrdiff_t(used_));
    std::copy_n(tallies_.begin() + block.begin, block.count, tallies_.begin() + ptrdiff_t(used_));
    block.begin = uint32_t(used_);
    block.room = room;
    used_ += room;
  }
  const Place place = block.begin + block.count++;
  edits_[place] = nothing(id);
  places_[place] = uint8_t(id % kBlock);
  tallies_[place] = {};
  ++size_;
  return place;
}

void Ledger::set(Place place, const Edit& edit) {
  Edit& old = edits_[place];
  EditBlock& block = blocks_[size_t(old.id) / kBlock];
  block.raising = uint16_t(block.raising + may_raise(edit) - may_raise(old));
  old = edit;
}

void Ledger::remove(Place place) {
  set(place, nothing(edits_[place].id));
  EditBlock& block = blocks_[size_t(edits_[place].id) / kBlock];
  const Place last = block.begin + --block.count;
  --size_;
  edits_[place] = edits_[last];
  places_[place] = places_[last];
  tallies_[place] = tallies_[last];
}

void Ledger::add_for_now(int32_t id, const Edit& more) {
  if (!holds(id)) return;
  Place place = find(id);
  const bool existed = place != kNone;
  before_.push_back({existed ? edits_[place] : nothing(id), existed});
  try {
    if (!existed) place = add(id);
  } catch (...) {
    before_.pop_back();
    throw;
  }
  set(place, merged(edits_[place], more));
}

void Ledger::undo() {
  for (; !before_.empty(); before_.pop_back()) {
    const Before& before = before_.back();
    const Place place = find(before.edit.id);
    if (before.existed)
      set(place, before.edit);
    else
      remove(place);
  }
}

}  // namespace fastsample
