// Second room: every truncation is a threshold. Walks a row through its chain of stages, of which
// each is a file of stages/.
#pragma once

#include "stages/stage.h"

namespace fastsample {

struct Cut {
  Kept kept;
  Exp2 exp2;                        // weights that the draw uses, unless a stage has given others
  double reweighted = 0.0;          // as in Cutting
  double temperature = 1.0;         // that of the draw; 0 is greedy
  const Stage* stateful = nullptr;  // the stage that has a state, if it has run,
  const double* numbers = nullptr;  // and its numbers
};

// Element i of a caller's array, whose first element says how far apart they are.
template <class T>
const T& element_at(const T* first, int64_t i) {
  const char* at = reinterpret_cast<const char*>(first) + i * int64_t(first->struct_size);
  return *reinterpret_cast<const T*>(at);
}

// Runs the stages of a valid chain over a scanned row without defects, with the coin and the state
// that the draw has.
Cut cut(Row& row, const fs_chain& chain, double u_xtc, const double* state, Workspace& workspace);

}  // namespace fastsample
