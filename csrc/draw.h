// Third room: weights of the survivors, one uniform, one token.
#pragma once

#include "chain.h"

namespace fastsample {

// The token of uniform u: the first survivor, by rising id, whose cumulative weight exceeds
// u * total. -1 where the row changed under the call and left nothing consistent to draw from.
struct Drawn {
  int64_t token;
  double q;  // its probability, or what it was before a stage gave it another weight
};
Drawn draw(const Row& row, const Cut& cut, double u, Workspace& workspace);

// The place of uniform u among n weights: the first whose cumulative sum exceeds u * total.
size_t place_of(const int64_t* weight, size_t n, double u);

// Moves the state of the chain's stage that has one, if it has; null is none.
void update_state(const Cut& cut, double q, double* state);

// Weighs what is kept, and returns what it weighs in all. Until it is known nothing has been
// written, and then no more memory is needed.
int64_t weigh_kept(const Row& row, const Cut& cut, Workspace& workspace);

// The distribution over all of the row's tokens.
void write_probs(const Row& row, const Cut& cut, Workspace& workspace, float* probs);

// Survivors with their probabilities, by falling value and rising id. Their number is returned;
// they are written where `capacity` holds them.
size_t write_survivors(const Row& row, Cut cut, Workspace& workspace, size_t capacity, int64_t* ids,
                       float* probs);

}  // namespace fastsample
