// What every entry point does: it lets no exception out, keeps the caller's rounding mode out, and
// says why it failed. And what a thread keeps between calls.
#pragma once

#include <memory>
#include <new>
#include <string>
#include <vector>

#include "fastsample.h"
#include "lists/kept.h"

#if defined(__SSE__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

namespace fastsample {

// Its own workspace, and one for each thread that has helped it.
struct Workspaces {
  Workspace own;
  std::vector<std::unique_ptr<Workspace>> helpers;

  void reserve(int threads) {
    while (helpers.size() + 1 < size_t(threads)) helpers.push_back(std::make_unique<Workspace>());
  }
  Workspace& of(int thread) { return thread ? *helpers[size_t(thread - 1)] : own; }
};

Workspaces& workspaces();

// Of the last call of this thread.
std::string& last_error();

fs_status fail(fs_status status, const std::string& message);

// Runs a function with round-to-nearest and without flush-to-zero, whatever the host has set.
class DefaultFloatMode {
 public:
#if defined(__SSE__) || defined(_M_X64)
  DefaultFloatMode() : saved_(_mm_getcsr()) {
    if ((saved_ & ~kFlags) != kDefault) _mm_setcsr(kDefault);
  }
  ~DefaultFloatMode() {
    if ((saved_ & ~kFlags) != kDefault) _mm_setcsr(saved_);
  }

 private:
  static constexpr unsigned kDefault = 0x1f80, kFlags = 0x3f;
  unsigned saved_;
#elif defined(__aarch64__)
  DefaultFloatMode() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
    if (saved_) __asm__ volatile("msr fpcr, %0" : : "r"(uint64_t(0)));
  }
  ~DefaultFloatMode() {
    if (saved_) __asm__ volatile("msr fpcr, %0" : : "r"(saved_));
  }

 private:
  uint64_t saved_;
#endif
};

// No exception leaves the library.
template <class Body>
fs_status guarded(Body body) {
  try {
    last_error().clear();
    const DefaultFloatMode mode;
    return body();
  } catch (const std::bad_alloc&) {
    return fail(FS_NO_MEMORY, "out of memory");  // short enough to need none
  } catch (...) {
    return fail(FS_INVALID_ARGUMENT, "internal error");
  }
}

// What is wrong with a row.
std::string describe(const Row& row, const fs_logits& logits, int64_t index);

}  // namespace fastsample
