// The tokens of a sequence and what its rules make of them: edits of the next row, kept up to date
// as tokens are pushed and taken back. Depends on rules/ and on its ledger.
#pragma once

#include <vector>

#include "rules/table.h"

namespace fastsample {

class History {
 public:
  History() = default;
  // Of valid rules.
  History(const fs_rule* rules, int64_t count);

  // Begins with these tokens. Each of these three either does all of it, or throws std::bad_alloc
  // and changes nothing.
  void start(const int32_t* ids, size_t count, size_t prompt);
  void push(const int32_t* ids, size_t count);
  void pop(size_t count);  // no more than there are
  // From now on one more token of less than `vocab` is pushed without an allocation.
  void reserve(size_t vocab);

  const std::vector<int32_t>& ids() const { return past_.ids; }
  size_t prompt() const { return past_.prompt; }
  // The largest id that a bias names, which a row must have; -1 is none.
  int32_t largest_biased() const { return largest_biased_; }
  // The edits of the next row, valid until the next change.
  EditTable edits();

 private:
  struct Acting {
    int32_t kind;
    const Rule* rule;
    Given given;
    int counter = -1;  // of the ledger's, where it counts

    // Where the window of a history of this size begins.
    size_t start(size_t size) const {
      return rule->last_n < 0 ? 0 : window_start(given.value[rule->last_n], size);
    }
  };
  struct Past {
    std::vector<int32_t> ids;
    size_t prompt = 0;
    Ledger ledger;
    std::vector<std::vector<size_t>> marked;  // of each acting rule
  };

  void push_one(int32_t id);
  void pop_one();
  void mark(int32_t id);
  unsigned counters_of(size_t place, size_t size) const;
  void count(int32_t id, unsigned counters, int step);
  template <class Body>
  void for_leaving(size_t size, Body body) const;
  void settle();

  std::vector<Acting> acting_;  // in the order of their kinds
  int counters_ = 0;
  int32_t largest_biased_ = -1;
  Past past_;
  bool asked_ = false;  // whether the ledger has what rules ask of the last token
  Scratch scratch_;
};

}  // namespace fastsample
