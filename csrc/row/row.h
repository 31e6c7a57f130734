// A row as every stage sees it: edited, masked and cut from above, whatever its memory holds.
#pragma once

#include "row/patch.h"

namespace fastsample {

enum class Defect {
  kNone,
  kNan,
  kPositiveInfinity,
  kEditedTooFar,  // by an edit, beyond float32
  kNothingFinite,
  kNothingAllowed
};

// Rows of so many blocks or less have too few of them for their maxima to tell the largest values
// apart.
constexpr size_t kShortRow = 64;

// One row and what the scan found in it. `block_max` belongs to the thread's workspace.
struct Row : Scanned {
  const Kernels* kernels;
  RowType type;
  size_t blocks;
  float max;
  mutable float lowest_max;  // finite: of the maxima, or below them
  Defect defect;
  size_t defect_at;
  const float* lane_max;   // kLanes of each block of a short row, or null: see scan_lanes
  Patch* patch;            // or null: every block is read in place
  bool lowered = false;    // stages have dropped the largest: maxima are no more those of the scan
  double edited_to = 0.0;  // what has been edited too far
  Listed few{};            // all finite values, where a mask allows few
  // Maxima below this may be larger than what edits and the mask leave of their blocks: few rows
  // need all.
  mutable float settled_from = -INFINITY;

  const RowKernels& own_ops() const { return kernels->row[type]; }
  const void* block(size_t b) const {
    constexpr size_t kSize[kRowTypes] = {4, 2, 2, 8};
    return static_cast<const char*>(data) + b * kBlock * kSize[type];
  }
  size_t left(size_t b) const { return n - b * kBlock; }
  // The values of a block as float32: in place where they are that already and all there.
  const float* values(size_t b, float scratch[kBlock]) const {
    if (patch && patch->state(b) != Patch::kOwn) return copy(b, scratch);
    return own_values(b, scratch);
  }
  const float* own_values(size_t b, float scratch[kBlock]) const {
    if (type == kF32 && left(b) >= size_t(kBlock)) return static_cast<const float*>(block(b));
    own_ops().load(block(b), left(b), scratch);
    return scratch;
  }

  // Makes the maxima that are at least so large what their blocks have left, and says whether one
  // has changed. Those that stay so large are the edited row's, and no others of it are.
  bool settle(float from = -INFINITY) const;
  // Says whether one has changed.
  bool settle_blocks(size_t first, size_t last) const;

  // What RowKernels says of them.
  void mass(Exp2 exp2, float tau, int64_t* all, int64_t* at_least) const;
  // The same for some of the blocks: of values >= tau.
  void mass_of_blocks(size_t first, size_t last, Exp2 exp2, float tau, int64_t* at_least) const;
  void entropy(Exp2 exp2, float tau, int64_t* all, int64_t* entropy, int64_t* at_least) const;
  void squares(Exp2 exp2, int64_t* all, int64_t* squares) const;
  void moments(Moments* moments) const;
  size_t count(float tau) const;
  size_t mass_and_marks(Exp2 exp2, float tau, int64_t* all, Marks* marks) const;
  size_t collect_marked(const Marks* marks, size_t first, size_t last, int32_t* ids,
                        float* x) const;
  size_t collect(const int32_t* blocks, size_t count, float low, float high, int32_t* ids,
                 float* x) const;
  void add_exponentials(size_t first, size_t last, const Exponent& exponent, float tau,
                        double* lanes) const;
  void quotients(size_t first, size_t last, Exp2 exp2, float tau, double total, float* out) const;
  float sample(size_t pieces, float* out) const;

  // Drops what a ceiling drops, but not all. `unused` becomes the patch of a row that has none.
  void cut_above(Ceiling ceiling, Patch& unused);
  // Makes a list of tokens all that there is, as far as maxima are concerned.
  void take_maxima(const float* x, const int32_t* ids, size_t n);

 private:
  const float* copy(size_t b, float scratch[kBlock]) const;
  void settle_copy(size_t b, float* max) const;
};

}  // namespace fastsample
