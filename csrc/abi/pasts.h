// The samplers whose histories rows are edited by: each is held for the time of the call.
#pragma once

#include "abi/check.h"
#include "abi/sampler.h"
#include "abi/words.h"
#include "chain.h"

namespace fastsample {

class HoldPasts {
 public:
  // Holds all, or those before the first that cannot be held.
  HoldPasts(const fs_draw* draws, int64_t rows) : draws_(draws), rows_(rows) {
    while (held_ < rows_ && hold(past(held_))) ++held_;
  }
  ~HoldPasts() {
    for (int64_t i = 0; i < held_; ++i)
      if (past(i)) past(i)->held.store(false, std::memory_order_release);
  }
  HoldPasts(const HoldPasts&) = delete;
  HoldPasts& operator=(const HoldPasts&) = delete;

  // What is wrong, or an empty string.
  std::string check(int64_t vocab) const {
    for (int64_t i = 0; i < rows_; ++i) {
      if (i == held_) return in_row("draw.past must be another one, in one call at a time", i);
      if (!past(i)) continue;
      if (element_at(draws_, i).edits)
        return in_row("draw.past must be null where edits are not", i);
      const int32_t largest = past(i)->history.largest_biased();
      if (largest >= vocab)
        return in_row(must("ids of a bias", "in [0, logits.vocab)", int64_t(largest)), i);
    }
    return {};
  }

 private:
  fs_sampler* past(int64_t i) const { return element_at(draws_, i).past; }
  static bool hold(fs_sampler* past) {
    return !past || !past->held.exchange(true, std::memory_order_acquire);
  }

  const fs_draw* draws_;
  int64_t rows_, held_ = 0;
};

}  // namespace fastsample
