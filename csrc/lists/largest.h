// The k largest values, ties by rising id.
#pragma once

#include "lists/survivors.h"

namespace fastsample {

// Drops from a list what is beyond.
void keep_top_k(const Row& row, Survivors& list, size_t k);

// Lists the k largest values of a row, or all finite ones where they are fewer.
void list_top_k(const Row& row, Exp2 exp2, size_t k, Survivors& list);

}  // namespace fastsample
