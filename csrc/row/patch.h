// What makes a row another one than its memory holds: edited values, tokens that are not allowed,
// and a ceiling above which stages have dropped tokens. The memory itself is never written to:
// blocks of 256 that are touched are copied and patched each time they are looked at, all others
// are read in place, and blocks of which nothing is left are not read at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "fastsample.h"
#include "row/buffer.h"
#include "simd/kernels.h"

namespace fastsample {

using Edit = fs_edit;

// In float64. What is -inf stays so.
inline double edited_exactly(const Edit& edit, float value) {
  double x = double(value) + edit.bias;
  x = x > 0.0 ? x / edit.factor : x * edit.factor;
  return x - edit.subtract;
}
// Rounded once.
inline float edited(const Edit& edit, float value) {
  return edit.banned ? -INFINITY : float(edited_exactly(edit, value));
}

// Whether some value may become larger by it.
inline bool may_raise(const Edit& edit) {
  return edit.bias > 0.0 || edit.factor < 1.0 || edit.subtract < 0.0;
}

// The edits of one block: a run of slots.
struct EditBlock {
  uint32_t begin;
  uint16_t count, room;  // slots in use, and those that may be
  uint16_t raising;      // how many edits may raise a value
};

// Edits in the order of their blocks. What is beyond the row changes nothing.
struct EditTable {
  const Edit* edit = nullptr;      // of a slot,
  const uint8_t* place = nullptr;  // and the place of its id in the block
  const EditBlock* block = nullptr;
  size_t blocks = 0;
};

// Each id once: in any order, or in a table.
struct Edits {
  const Edit* edit = nullptr;
  size_t count = 0;
  EditTable table{};
};

// Bit i % 32 of word i / 32 says whether id i is allowed. Ids from `size` on are not; where `word`
// is null, all before it are.
struct Allowed {
  const uint32_t* word = nullptr;
  size_t size = std::numeric_limits<size_t>::max();

  // Whether something is forbidden in a row of n, or may be.
  bool limits(size_t n) const { return word || size < n; }
};

// Where stages have cut a row from above. Of values equal to it, some ids stay.
struct Ceiling {
  float value = INFINITY;
  size_t first = 0, last = std::numeric_limits<size_t>::max();

  bool drops(float x, size_t id) const {
    return x > value || (x == value && (id < first || id > last));
  }
  // Whether it may drop one of these.
  bool touches(float max, size_t first_id, size_t last_id) const {
    return max > value || (max == value && (first_id < first || last_id > last));
  }
};

class Patch {
 public:
  enum State : uint8_t { kOwn = kAllOfIt, kCopied = kSomeOfIt, kEmpty = kNoneOfIt };

  // For a row of so many values.
  void start(const Kernels* kernels, size_t n, const Edits& edits, const Allowed& allowed);
  // The same for a row without edits that is about to get a ceiling.
  void start(size_t n) { start(nullptr, n, {}, {}); }

  State state(size_t b) const { return State(states_.get()[b]); }
  void set(size_t b, State state) { states_.get()[b] = state; }
  bool has_edits() const { return table_.blocks > 0; }
  bool has_edits(size_t b) const { return b < table_.blocks && table_.block[b].count; }
  // Whether a block has nothing but a mask, if that.
  bool is_own_or_masked(size_t b) const {
    return state(b) == kOwn || (ceiling_.value == INFINITY && !has_edits(b));
  }
  // Whether a block is whole in a row of n and has nothing but a mask.
  bool is_masked(size_t b, size_t n) const {
    return masked_ && (b + 1) * kBlock <= n && !has_edits(b);
  }
  // Whether no value of a block is larger than it is in memory.
  bool only_lowers(size_t b) const { return !has_edits(b) || !table_.block[b].raising; }
  // Whether values >= low of a block that are read in place, under the mask, and then corrected
  // are its own.
  bool can_correct(size_t b) const {
    return state(b) == kOwn || (ceiling_.value == INFINITY && only_lowers(b));
  }
  // Edits what was collected in place, and drops what is below `low` then. Returns how many stay.
  size_t correct(float low, int32_t* ids, float* x, size_t n) const;
  // The words of the mask, or null.
  const uint32_t* allowed() const { return masked_ ? bits_.get() : nullptr; }
  const uint8_t* states() const { return states_.get(); }
  // How many values a mask allows, where these are few enough to be a list, else 0; and the words
  // of the mask that they are in.
  size_t few() const { return few_; }
  const int32_t* used_words() const { return words_.get(); }
  size_t used_count() const { return used_count_; }
  // For them.
  Listed few_list();
  // Whether a mask seems to allow so much that few blocks lose their maximum.
  bool allows_most(const Kernels* kernels) const;
  // The largest value of a block after its edits, given its values and the largest of them; NaN
  // where that may have gone, and only a look at the edited block tells.
  float max_after(size_t b, const float* own, float max) const;
  // The blocks of which some value may become larger.
  const int32_t* raising() const { return raising_.get(); }
  size_t raising_count() const { return raising_count_; }
  // Room for the place of every block.
  int32_t* block_places() { return block_places_.reserve(blocks_ + kSlack); }
  // What the edit of a token makes of its value before it is rounded.
  double exactly(size_t id, float value) const;
  // Whether there is a mask of which nothing is allowed.
  bool allows_none() const { return masked_ && used_count_ == 0; }
  // Patches the copy of a block.
  void apply(const Kernels* kernels, size_t b, float* x) const;
  // From now on values above the ceiling's are gone, and those equal to it whose ids are not in its
  // range.
  void lower(Ceiling ceiling);

 private:
  void sort_edits(const Edits& edits);
  const Edit* find(size_t id) const;
  void take_mask(const Kernels* kernels, const Allowed& allowed);
  void use_words(size_t b, uint64_t which);
  void take_last_of_mask(const uint32_t* words, size_t b, size_t ids);

  size_t n_ = 0, blocks_ = 0;
  Buffer<uint8_t> states_;
  EditTable table_;
  Buffer<Edit> sorted_;  // edits that came in any order
  Buffer<uint8_t> places_;
  Buffer<EditBlock> sorted_blocks_;
  Buffer<int32_t> raising_, block_places_;
  size_t raising_count_ = 0;
  bool masked_ = false;
  Buffer<uint32_t> bits_;  // of blocks of which something is allowed
  Buffer<uint64_t> used_;  // a bit for each word,
  Buffer<int32_t> words_;  // and the list of those that are set
  size_t used_count_ = 0, few_ = 0;
  Buffer<int32_t> few_ids_;
  Buffer<float> few_x_;
  Ceiling ceiling_;
};

}  // namespace fastsample
