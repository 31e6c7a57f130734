// The shortest prefix, by falling value and rising id, whose mass reaches p of the total.
#pragma once

#include "cut.h"

namespace fastsample {

// Drops from a weighed list what is beyond, down to `at_least` tokens.
void keep_top_p(const Row& row, Survivors& list, double p, size_t at_least);

// Cuts a row, and leaves in the workspace the list of what is kept, or its mass per block.
void cut_top_p(const Row& row, Exp2 exp2, double p, Kept& kept, Workspace& workspace);

}  // namespace fastsample
