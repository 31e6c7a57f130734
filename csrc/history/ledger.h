// The edits of a sequence, one per id, kept in the order in which a row is read: block by block.
// An id is added, found, changed and removed in a time that depends on no vocabulary and no
// history; memory follows the ids that are there and the blocks of 256 that they lie in. What asks
// for an edit only until the next token adds it for now, and all of that is undone together.
// Depends on row/patch.h for the table that a row reads.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cstdint>
#include <vector>

#include "row/patch.h"

namespace fastsample {

class Ledger {
 public:
  static constexpr int kCounters = 4;
  // How often an id stands in the windows that count it, and what it is without them.
  struct Tally {
    uint32_t count[kCounters];
    bool fixed, fixed_ban;
  };
  // Where an edit is, until an id is added or removed.
  using Place = size_t;

  // Whether a row can have such an id.
  static bool holds(int32_t id) { return id >= 0 && id < FS_MAX_VOCAB; }

  // The edit of an id, which changes nothing where it is new.
  Place touch(int32_t id);
  Tally& tally(Place place) { return tallies_[place]; }
  const Edit& edit(Place place) const { return edits_[place]; }
  void set(Place place, const Edit& edit);
  void remove(Place place);

  // Merges what lasts until undo().
  void add_for_now(int32_t id, const Edit& more);
  void undo();

  // From now on so many more ids of less than `ids` are added without an allocation.
  void reserve(size_t ids, size_t more);

  // Valid until the next change.
  EditTable table() const {
    return {edits_.data(), places_.data(), blocks_.data(), size_ ? blocks_.size() : 0};
  }

 private:
  static constexpr Place kNone = ~Place(0);
  struct Before {  // an edit was added for now
    Edit edit;
    bool existed;
  };

  Place find(int32_t id) const;
  Place add(int32_t id);
  void grow(size_t slots);

  std::vector<EditBlock> blocks_;
  // Slots, of which every block has a run with room to spare.
  size_t used_ = 0, size_ = 0;  // of these, and how many hold an edit
  std::vector<Edit> edits_;
  std::vector<uint8_t> places_;  // of the ids in their blocks
  std::vector<Tally> tallies_;
  std::vector<Before> before_;
};

// A sum or product of finite numbers that stays finite.
inline double held(double v) { return std::clamp(v, -DBL_MAX, DBL_MAX); }

// One edit for two of the same id.
Edit merged(const Edit& a, const Edit& b);

}  // namespace fastsample
