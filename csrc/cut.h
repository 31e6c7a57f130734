// Second room: every truncation is a threshold. Turns the parameters into thresholds, one stage
// after the other, and yields the survivors. Portable: all SIMD is behind the kernel table.
#pragma once

#include "fastsample.h"
#include "scan.h"

namespace fastsample {

// Kept tokens, by rising id. Weights are whole numbers of units of 2^-kUnitBits.
class Survivors {
 public:
  size_t size = 0;
  int32_t* ids = nullptr;
  float* x = nullptr;
  int64_t* weight = nullptr;

  void reserve(size_t n);
  // Weighs every survivor as its block of the row does, unless it is weighed so already.
  void weigh(const Row& row, Exp2 exp2);
  // Drops what is below tau and, of those equal to tau, all but the first `ties`.
  void keep(float tau, size_t ties);
  int64_t mass() const;
  void clear() {
    size = 0;
    scale_ = 0.0f;
  }

 private:
  Buffer<int32_t> ids_, shift_;
  Buffer<float> x_;
  Buffer<int64_t> weight_;
  float scale_ = 0.0f;  // of the weights at hand; 0 is none
};

// What a thread keeps between calls.
struct Workspace {
  Buffer<float> block_max;
  Buffer<int64_t> block_mass;
  Survivors survivors;
  Buffer<int64_t> tokens;
};

struct Cut {
  bool whole_row;  // nothing was cut: every finite value survives, and the list is not made
  Exp2 exp2;       // weights that the draw uses
};

// Runs the stages of `params` over a scanned row without defects.
Cut cut(const Row& row, const fs_params& params, Workspace& workspace);

// Appends all finite values to the list.
void collect_all(const Row& row, Survivors& list);

}  // namespace fastsample
