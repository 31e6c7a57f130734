// What else one wants to know of a draw, from the read that drew it: log-probabilities, rank, the
// most probable tokens, what was kept, and how much of the row that is.
#pragma once

#include "draw.h"

namespace fastsample {

// Where to write what is asked for of one row; null is not asked for.
struct Details {
  bool raw = false;  // of the logits as they came, or of what the token was drawn with
  float* logprob = nullptr;
  int64_t* rank = nullptr;
  int64_t* at_least = nullptr;
  size_t top = 0;
  int32_t* top_ids = nullptr;
  float* top_logprobs = nullptr;
  int32_t* support = nullptr;  // room for the whole row
  int64_t* support_count = nullptr;
  double* log_mass = nullptr;  // written by the caller

  bool wants_logprobs() const { return logprob || rank || at_least || top_ids || top_logprobs; }
};

// Writes them of a row that this token was just drawn from; `raw` is the row as it came, and not
// looked at where that is not asked for.
void write_details(const Row& row, const Cut& cut, int64_t token, const Row& raw,
                   Workspace& workspace, const Details& details);

// The logarithm of what is kept of a row that was just drawn from, as a part of all of the row;
// `whole` is the row before any stage.
double log_mass(const Row& row, const Cut& cut, const Row& whole, Workspace& workspace);

// Of a row that nothing was drawn from.
void write_no_details(const Details& details);

}  // namespace fastsample
