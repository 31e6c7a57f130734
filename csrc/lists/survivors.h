// A short list of tokens, and the place in a row's order that cuts it off.
#pragma once

#include <cfloat>
#include <limits>

#include "row/scan.h"

namespace fastsample {

constexpr size_t kAllTies = std::numeric_limits<size_t>::max();
constexpr size_t kNoLimit = kAllTies;

// Below this many tokens a list of all is faster than any search of the row.
constexpr size_t kSmallRow = 512;

// So many values are a short list, whatever the row.
constexpr size_t kShortList = 4096;

// What the stages keep: a place in the total order (value falling, id rising), and the list of what
// is before it once that is short.
struct Kept {
  float tau = -FLT_MAX;    // values above tau,
  size_t last = kNoLimit;  // and those equal to it up to this id
  bool listed = false;     // the list holds them
  float scale = 0.0f;      // block_mass holds their mass so scaled

  bool has(float x, size_t id) const { return x > tau || (x == tau && id <= last); }
  bool whole_row() const { return tau == -FLT_MAX && last == kNoLimit; }
};

// A short list of tokens by rising id. Weights are whole numbers of units of 2^-kUnitBits.
class Survivors {
 public:
  size_t size = 0;
  float lower_bound = 0.0f;  // of the values
  int32_t* ids = nullptr;
  float* x = nullptr;
  int64_t* weight = nullptr;

  void assign(size_t id, float value);
  void assign(const Survivors& other);  // without its weights
  void assign(const Listed& other, float lower_bound);
  // Appends the row's values in [low, high). Of those equal to low, blocks in which `ties` and more
  // have been seen before give none. Stops, and returns false, once there are more than `limit`.
  bool collect(const Row& row, float low, float high, size_t ties, size_t limit);
  // A value that at least k of the row's reach, and mostly few more: by its maxima of lanes, of
  // which there have to be no fewer.
  float bound_by_lanes(const Row& row, size_t k);
  // Appends what is marked, so many values that are at least `low`.
  void collect_marked(const Row& row, const Marks* marks, size_t marked, float low);
  // Appends those of blocks whose maximum reaches `best`.
  void collect_best(const Row& row, float best, float low);
  // Weighs every survivor as its block of the row does, unless it is weighed so already.
  void weigh(const Row& row, Exp2 exp2);
  // Drops what is below tau and, of those equal to tau, all but the first `ties`.
  void keep(const Row& row, float tau, size_t ties);
  void keep(const Row& row, const Kept& kept);
  int64_t mass(const Row& row) const {
    return row.kernels->mass_at_least(x, weight, size, -INFINITY);
  }
  // Adds to the masses per block the weights of the first `count`, times `sign`. `so_far` has room
  // for a number per block.
  void add_by_block(size_t count, int64_t sign, size_t blocks, int64_t* so_far,
                    int64_t* mass) const;
  // What is behind the last becomes weightless, for kernels that read whole vectors.
  void pad();
  // Drops what a ceiling drops, or what is not marked to stay. What is left has to be weighed anew.
  void cut_above(Ceiling ceiling);
  void keep_marked(const uint8_t* stays);
  void clear() {
    size = 0;
    scale_ = 0.0f;
  }

 private:
  template <class Stays>
  void keep_if(Stays stays) {
    size_t left = 0;
    for (size_t i = 0; i < size; ++i) {
      ids[left] = ids[i];
      x[left] = x[i];
      left += stays(i) ? 1 : 0;
    }
    size = left;
    scale_ = 0.0f;
  }
  void reserve(size_t n);
  size_t list_blocks(const Row& row, float low);
  void append(const Row& row, size_t first, size_t last, float low, float high);

  Buffer<int32_t> ids_;
  Buffer<float> x_;
  Buffer<int64_t> weight_;
  Buffer<int32_t> blocks_;
  Buffer<float> maxima_;
  float scale_ = 0.0f;  // of the weights at hand; 0 is none
};

}  // namespace fastsample
