// A buffer that grows and is kept, so that a thread allocates only where it never needed as much.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <utility>

namespace fastsample {

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

}  // namespace fastsample
