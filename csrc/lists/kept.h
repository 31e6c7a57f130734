// What is kept of a row, by a place in its order or as a list: its mass, its weights.
#pragma once

#include "lists/survivors.h"

namespace fastsample {

// What is drawn from a row, and the state after it.
struct Outcome {
  int64_t token;
  double state[2];
};

// What a thread keeps between calls.
struct Workspace {
  Buffer<float> block_max;
  Patch patch;
  Buffer<int64_t> block_mass, all_mass, high_mass;
  Buffer<Marks> marks;
  Survivors survivors;
  Survivors base;            // of stages that are joint, or to look at
  Buffer<double> distances;  // of the tokens of a list,
  Buffer<uint32_t> places;   // where they are in it,
  Buffer<uint8_t> stays;     // and whether they are kept
  Buffer<int64_t> before;    // weights that a stage has replaced
  Buffer<Outcome> drawn;
  Buffer<uint64_t> gathered;  // values that are not next to each other
  Survivors largest;          // of what is told of a draw,
  Buffer<float> exponentials;
  Buffer<float> raw_max;  // and the row without its ceiling, or without all that made it another
  Patch raw_patch;
  Buffer<double> shares;  // of a draft or its target, verified: probabilities,
  Buffer<int32_t> share_ids;
  Buffer<int64_t> left;  // and what is left of them
  Buffer<int32_t> left_ids;
  size_t left_size = 0;
  Buffer<int64_t> emitted;
  Buffer<uint32_t> allowed;  // by both of two masks
};

// Mass of what is kept, per block.
const int64_t* kept_mass(const Row& row, const Kept& kept, Exp2 exp2, Workspace& workspace);

// Weights of the 256 places of a block, zero for what is not kept.
void weigh_block(const Row& row, const Kept& kept, Exp2 exp2, size_t b, int64_t weight[kBlock]);

// Takes equal values of a row, block after block, until they fill `missing`; `at_least` and `above`
// are the masses per block of values >= tau and > tau. Leaves the kept mass in `at_least`.
size_t last_of_ties(const Row& row, Exp2 exp2, float tau, int64_t missing, int64_t* at_least,
                    const int64_t* above);

// Puts what is kept into the list.
void make_list(const Row& row, Kept& kept, Survivors& list);

}  // namespace fastsample
