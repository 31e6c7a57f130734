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

// In float64, rounded once. What is -inf stays so.
inline float edited(const Edit& edit, float value) {
  if (edit.banned) return -INFINITY;
  double x = double(value) + edit.bias;
  x = x > 0.0 ? x / edit.factor : x * edit.factor;
  return float(x - edit.subtract);
}

// Each id once, in any order.
struct Edits {
  const Edit* edit = nullptr;
  size_t count = 0;
};

// Bit i % 32 of word i / 32 says whether id i is allowed. Ids from `size` on are not; where `word`
// is null, all before it are.
struct Allowed {
  const uint32_t* word = nullptr;
  size_t size = std::numeric_limits<size_t>::max();
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
  enum State : uint8_t { kOwn, kCopied, kEmpty };

  // For a row of so many values.
  void start(size_t n, Edits edits, Allowed allowed);
  // The same for a row without edits that is about to get a ceiling.
  void start(size_t n) { start(n, {}, {}); }

  State state(size_t b) const { return State(states_.get()[b]); }
  void set(size_t b, State state) { states_.get()[b] = state; }
  bool has_edits(size_t b) const { return edits_ && starts_.get()[b] != starts_.get()[b + 1]; }
  // Computes the edited values of a block from its own, and returns the largest of them; NaN where
  // it is less than `max`, which an edit may have taken away.
  float edit(size_t b, const float* own, float max);
  // Patches the copy of a block.
  void apply(const Kernels* kernels, size_t b, float* x) const;
  // From now on values above the ceiling's are gone, and those equal to it whose ids are not in its
  // range.
  void lower(Ceiling ceiling);

 private:
  void sort_edits(Edits edits);
  void copy_bits(Allowed allowed);

  static constexpr size_t kWords = kBlock / 32;
  size_t n_ = 0, blocks_ = 0;
  Buffer<uint8_t> states_;
  bool edits_ = false;  // sorted by block; those of block b begin at starts_[b]
  Buffer<Edit> sorted_;
  Buffer<uint32_t> starts_;
  Buffer<float> values_;
  bool masked_ = false;
  Buffer<uint32_t> bits_;
  Ceiling ceiling_;
};

}  // namespace fastsample
