// Second room: every truncation is a threshold. Turns the parameters into thresholds, one stage
// after the other. Portable: all SIMD is behind the kernel table.
#pragma once

#include "fastsample.h"
#include "lists/survivors.h"

namespace fastsample {

// What a thread keeps between calls.
struct Workspace {
  Buffer<float> block_max;
  Buffer<int64_t> block_mass, all_mass, high_mass;
  Buffer<Marks> marks;
  Survivors survivors;
  Buffer<int64_t> tokens;
};

struct Cut {
  Kept kept;
  Exp2 exp2;  // weights that the draw uses
};

// Runs the stages of `params` over a scanned row without defects.
Cut cut(const Row& row, const fs_params& params, Workspace& workspace);

// Mass of what is kept, per block.
const int64_t* kept_mass(const Row& row, const Kept& kept, Exp2 exp2, Workspace& workspace);

// Weights of the 256 places of a block, zero for what is not kept.
void weigh_block(const Row& row, const Kept& kept, Exp2 exp2, size_t b, int64_t weight[kBlock]);

// Puts what is kept into the list.
void make_list(const Row& row, Kept& kept, Survivors& list);

}  // namespace fastsample
