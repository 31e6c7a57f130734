// What a rule is: a name, numbers and ids, and the edits that it asks for. A rule is one file of
// this folder and one row of table.cpp; a file depends on this header and elementary.h.
#pragma once

#include <algorithm>
#include <vector>

#include "history/ledger.h"
#include "number.h"

namespace fastsample {

// The tokens so far, of which the first `prompt` are the prompt.
struct Tokens {
  const int32_t* id;
  size_t size, prompt;
  size_t unmarked;  // where what follows the last marked id begins
};

// The numbers and ids that one rule has been given.
struct Given {
  double value[4];
  std::vector<int32_t> ids;
  std::vector<int64_t> offsets;  // of sequences of ids
  std::vector<double> weights;
  std::vector<int32_t> sorted;  // the ids of a rule that marks them

  bool has(int32_t id) const { return std::binary_search(sorted.begin(), sorted.end(), id); }
};

// What rules need while they look at a history.
struct Scratch {
  std::vector<uint32_t> lengths;
  struct Found {
    int32_t id;
    uint32_t length;
  };
  std::vector<Found> found;     // each id once,
  std::vector<uint32_t> slots;  // and 1 + its place there, by a hash of it; else 0
};

struct Rule {
  Number numbers[4];
  // Which lists it has: ids, with weights or as breakers and the like; or sequences with weights.
  enum Lists { kNone, kIds, kWeighted, kSequences } lists;
  bool (*is_off)(const Given& given);

  // A rule acts in one or two of these ways. What does not depend on the history:
  void (*fix)(const Given& given, Ledger& ledger) = nullptr;
  // What depends on how often an id stands in a window of it:
  void (*count)(const double* value, uint32_t times, Edit& edit) = nullptr;
  bool (*counts)(const double* value) = nullptr;  // whether it does with these numbers; null: yes
  int last_n = -1;      // which of the numbers is the length of the window; none: all
  bool prompt = false;  // whether the prompt counts
  // What its end asks for:
  void (*ask)(const Given& given, const Tokens& tokens, Scratch& scratch, Ledger& ledger) = nullptr;
  bool marks = false;  // whether it has to know where its ids stand last
};

// An edit that does one thing alone.
inline Edit ban(int32_t id) { return {id, 1, 1.0, 0.0, 0.0}; }
inline Edit add(int32_t id, double bias) {
  return bias < -DBL_MAX ? ban(id) : Edit{id, 0, 1.0, 0.0, bias};
}
inline Edit subtract(int32_t id, double value) { return {id, 0, 1.0, value, 0.0}; }

// Merges what always holds.
inline void fix(Ledger& ledger, const Edit& edit) {
  if (!Ledger::holds(edit.id)) return;
  const Ledger::Place place = ledger.touch(edit.id);
  ledger.set(place, merged(ledger.edit(place), edit));
  Ledger::Tally& tally = ledger.tally(place);
  tally.fixed = true;
  tally.fixed_ban |= edit.banned != 0;
}

// Calls body(i) for the places i from `first` to `end` - 1 that hold this id, the last one first.
template <class Body>
void for_places_of(int32_t id, const int32_t* ids, size_t first, size_t end, Body body) {
  constexpr size_t kTogether = 32;
  for (size_t i = end; i > first;) {
    const size_t n = std::min(i - first, kTogether);
    const int32_t* at = ids + (i - n);
    if (n == kTogether) {
      int any = 0;
      for (size_t k = 0; k < kTogether; ++k) any |= at[k] == id;
      if (!any) {
        i -= n;
        continue;
      }
    }
    for (size_t k = n; k-- > 0;)
      if (at[k] == id) body(i - n + k);
    i -= n;
  }
}

inline bool is_length(double v) { return is_whole(v, -1.0); }
constexpr const char* kLength = "a whole number >= -1";

// Where the last n of so many tokens begin; -1 is all of them.
inline size_t window_start(double last_n, size_t size) {
  return last_n < 0.0 || last_n >= double(size) ? 0 : size - size_t(last_n);
}

}  // namespace fastsample
