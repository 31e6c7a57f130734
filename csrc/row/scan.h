// First room: one pass over a row of logits gives its summary, the maximum of every block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

#include "simd/kernels.h"

namespace fastsample {

// A buffer that grows and is kept, so that a thread allocates only where it never needed as much.
template <class T>
class Buffer {
 public:
  // Room for n values; what was there is kept up to `keep`.
  T* reserve(size_t n, size_t keep = 0) {
    if (n > capacity_) {
      const size_t capacity = keep ? n + n / 4 : n;  // what is kept may go on growing
      std::unique_ptr<T[]> grown(new T[capacity]);
      if (keep) std::memcpy(grown.get(), data_.get(), keep * sizeof(T));
      data_ = std::move(grown);
      capacity_ = capacity;
    }
    return data_.get();
  }
  T* get() const { return data_.get(); }

 private:
  std::unique_ptr<T[]> data_;
  size_t capacity_ = 0;
};

enum class Defect { kNone, kNan, kPositiveInfinity, kNothingFinite };

// One row and what the scan found in it. `block_max` belongs to the thread's workspace.
struct Row : Scanned {
  const Kernels* kernels;
  RowType type;
  size_t blocks;
  float max;
  float lowest_max;  // finite: of the maxima, or below them
  Defect defect;
  size_t defect_at;

  const RowKernels& ops() const { return kernels->row[type]; }
  const void* block(size_t b) const {
    constexpr size_t kSize[kRowTypes] = {4, 2, 2, 8};
    return static_cast<const char*>(data) + b * kBlock * kSize[type];
  }
  size_t left(size_t b) const { return n - b * kBlock; }
  // The values of a block as float32: in place where they are that already and all there.
  const float* values(size_t b, float scratch[kBlock]) const {
    if (type == kF32 && left(b) >= size_t(kBlock)) return static_cast<const float*>(block(b));
    ops().load(block(b), left(b), scratch);
    return scratch;
  }
};

Row scan(const Kernels* kernels, RowType type, const void* data, size_t n,
         Buffer<float>& block_max);

}  // namespace fastsample
