// Threads that help a call with its rows: no pool, so that an import starts nothing, a fork breaks
// nothing, and nothing competes with the host's own threads between calls. A call never waits for a
// thread that has taken no row: where other work keeps the processors, it may begin when the call
// is long over, and then finds nothing to do. Depends on the standard library and on POSIX threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#if !defined(_WIN32)
#include <pthread.h>
#endif

#if defined(__linux__)
#include <sched.h>
#endif

#if defined(__SSE__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

// What a thread does before it asks for its first row; tests let it be late.
#if !defined(FASTSAMPLE_HELPER_BEGINS)
#define FASTSAMPLE_HELPER_BEGINS()
#endif

namespace fastsample {

// How many threads of this process can run at once: what its affinity leaves of the machine.
inline int available_threads() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned count = std::thread::hardware_concurrency();
  return count ? int(count) : 1;
}

// The rows of a call that are not taken yet, and how many of the taken ones are done. The threads
// of the call own it together, because the last of them may outlive the call.
//
// Each thread takes rows that follow each other, which are read faster, and stay in its caches for
// the next call: those of its own part, then what is left of the parts after it, and round.
class Rows {
 public:
  Rows(int64_t count, int threads) : parts_(size_t(threads)) {
    for (size_t i = 0; i < parts_.size(); ++i) {
      parts_[i].next = count * int64_t(i) / threads;
      parts_[i].end = count * int64_t(i + 1) / threads;
    }
  }

  // The next row that none has taken, or -1. Who takes one has to say that it is done. The call's
  // own thread, 0, is never given one while one before it is not taken.
  int64_t take(int thread) {
    for (size_t i = 0; i < parts_.size(); ++i) {
      Part& part = parts_[(size_t(thread) + i) % parts_.size()];
      const int64_t row = part.next.fetch_add(1, std::memory_order_relaxed);
      if (row < part.end) return row;
    }
    return -1;
  }

  void done() {
    // Nothing of the call may be touched from here on, unless another row is taken.
    if (done_.fetch_add(1) + 1 < wanted_.load()) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    all_done_.notify_one();
  }

  // Gives out no more rows, and waits for those that are taken.
  void close() {
    int64_t left = 0;
    for (Part& part : parts_) left += std::max(part.end - part.next.exchange(part.end), int64_t(0));
    const int64_t taken = parts_.back().end - left;
    wanted_.store(taken);
    // The last row of another thread is mostly done before this one could be put to sleep.
    for (int i = 0; i < kSpins; ++i) {
      if (done_.load() >= taken) return;
      pause();
    }
    std::unique_lock<std::mutex> lock(mutex_);
    all_done_.wait(lock, [&] { return done_.load() >= taken; });
  }

 private:
  static constexpr int kSpins = 500;  // some 10 microseconds

  static void pause() {
#if defined(__SSE__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__) && !defined(_MSC_VER)
    __asm__ volatile("isb");
#endif
  }

  struct Part {
    std::atomic<int64_t> next;
    int64_t end;
  };
  std::vector<Part> parts_;
  std::atomic<int64_t> done_{0};
  std::atomic<int64_t> wanted_{INT64_MAX};  // a number of rows done that the call waits for
  std::mutex mutex_;
  std::condition_variable all_done_;
};

// Takes rows and runs body(row, thread) while it returns true and there are any.
template <class Body>
void work_on(Rows& rows, const Body& body, int thread) {
  for (bool go_on = true; go_on;) {
    const int64_t row = rows.take(thread);
    if (row < 0) return;  // `body` may be gone
    go_on = body(row, thread);
    rows.done();
  }
}

// Runs f in a thread that nobody waits for, if the system grants one. It is born detached:
// std::thread::detach may look at a thread that has ended by then, whose memory glibc has given
// back (its bug 19951).
template <class F>
bool start_detached(F f) {
#if defined(_WIN32)
  try {
    std::thread(std::move(f)).detach();
    return true;
  } catch (const std::exception&) {  // std::system_error, std::bad_alloc
    return false;
  }
#else
  F* owned = nullptr;
  try {
    owned = new F(std::move(f));
  } catch (const std::exception&) {  // std::bad_alloc
    return false;
  }
  const auto run = [](void* argument) -> void* {
    const std::unique_ptr<F> function(static_cast<F*>(argument));
    (*function)();
    return nullptr;
  };
  pthread_t thread;
  pthread_attr_t attributes;
  bool started = pthread_attr_init(&attributes) == 0;
  if (started) {
    started = pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) == 0 &&
              pthread_create(&thread, &attributes, run, owned) == 0;
    pthread_attr_destroy(&attributes);
  }
  if (!started) delete owned;
  return started;
#endif
}

// Runs body(row, thread) for the rows 0 to count - 1, each in one of `threads` threads: 0 is this
// one, and others help where the system grants them. Returns when all rows that were taken are
// done: all there are, unless a body returned false in this thread. No body may throw.
template <class Body>
void share_out(int64_t count, int threads, const Body& body) {
#if defined(__MINGW32__)
  threads = 1;  // winpthreads crashes where a thread is detached that has not begun
#endif
  if (threads <= 1) {
    for (int64_t row = 0; row < count && body(row, 0); ++row) {
    }
    return;
  }
  std::shared_ptr<Rows> rows;
  try {
    rows = std::make_shared<Rows>(count, threads);
  } catch (const std::exception&) {  // std::bad_alloc
    return share_out(count, 1, body);
  }
  for (int thread = 1; thread < threads; ++thread) {
    const bool started = start_detached([rows, &body, thread] {
      FASTSAMPLE_HELPER_BEGINS();
      work_on(*rows, body, thread);
    });
    if (!started) break;
  }
  work_on(*rows, body, 0);
  rows->close();
}

}  // namespace fastsample
