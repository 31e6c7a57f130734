// What fs_sampler is: a sequence with all that its next draw depends on.
#pragma once

#include <atomic>
#include <vector>

#include "history/history.h"
#include "stages/table.h"

struct fs_sampler {
  fs_sampler(const fs_chain& chain, const fs_rule* rules, int64_t rule_count);
  fs_sampler(const fs_sampler& from);

  // As new.
  void reset(uint64_t seed, uint64_t stream, uint64_t offset);
  // From now on one more token of less than `vocab` is taken without an allocation.
  void reserve(int64_t vocab);
  // Goes on after these tokens, drawn at its offset and those that follow.
  void take(const int32_t* ids, size_t count);
  // The offset goes back to where the history was no longer than this.
  void take_back(size_t size);

  // Tokens of the history that were drawn one after the other, at offsets that follow each other.
  struct Drawn {
    size_t place, count;
    uint64_t offset;
  };

  std::vector<fs_stage> stages;
  fs_chain chain;
  const fs_stage* stateful = nullptr;  // the stage that has a state and is on, or null
  bool has_coin = false;
  bool greedy = false;  // so that a state stays as it is
  fastsample::History history;
  int32_t largest_id = -1;        // that a row must have
  bool masked = false;            // whether only some ids are allowed,
  std::vector<uint32_t> allowed;  // which, as bits
  double state[2] = {0.0, 0.0};
  uint64_t seed = 0, stream = 0, offset = 0;
  std::vector<Drawn> drawn;  // by rising place

  // A call that has a sampler holds it; another one at the same time is refused.
  mutable std::atomic<bool> held{false};
};
