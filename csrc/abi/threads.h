// Threads that help a call with its rows: no pool, so that an import starts nothing, a fork breaks
// nothing, and nothing competes with the host's own threads between calls. A call never waits for a
// thread that has taken no row: where other work keeps the processors, it may begin when the call
// is long over, and then finds nothing to do. Depends on the standard library and on POSIX threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
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
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>
#endif

#if defined(__SSE__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

// What a thread does before it asks for its first row; tests let it be late.
#if !defined(FASTSAMPLE_HELPER_BEGINS)
#define FASTSAMPLE_HELPER_BEGINS()
#endif

// What says how many processors are idle; tests say it themselves.
#if !defined(FASTSAMPLE_IDLE_PROCESSORS)
#define FASTSAMPLE_IDLE_PROCESSORS idle_processors
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

// How many processors of the machine have nothing to run at this moment; INT_MAX where the system
// does not say. A thread that is started where none is idle takes the processor from the one that
// started it, or is put aside in the middle of a row, for as long as several calls take.
inline int idle_processors() {
#if defined(__linux__)
  static std::atomic<int> processors{0};  // asking takes longer than all the rest
  if (processors.load(std::memory_order_relaxed) == 0)
    processors.store(int(sysconf(_SC_NPROCESSORS_ONLN)), std::memory_order_relaxed);
  const int file = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
  if (file < 0) return INT_MAX;
  char text[64];
  const ssize_t size = read(file, text, sizeof text - 1);
  close(file);
  text[std::max(size, ssize_t(0))] = '\0';
  int runnable;  // who runs, this thread too, or waits for a processor
  if (std::sscanf(text, "%*s %*s %*s %d/", &runnable) == 1 && runnable > 0)
    return std::max(processors.load(std::memory_order_relaxed) - runnable, 0);
#endif
  return INT_MAX;
}

// When to ask for idle processors: at once, and after 32 us, 256 us and so on, so that what asking
// takes, some 6 us, is little of a call. A thread that helped the call before may be counted still,
// and other work may end.
class Looks {
 public:
  bool due() {
    const Clock::time_point now = Clock::now();
    if (now < next_) return false;
    next_ = now + pause_;
    pause_ *= 8;
    return true;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point next_ = Clock::time_point::min();
  std::chrono::microseconds pause_{32};
};

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
template <class Body, class Before>
void work_on(Rows& rows, const Body& body, int thread, const Before& before_each) {
  for (bool go_on = true; go_on;) {
    before_each();
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

// How many threads share a call's rows out: this one, others up to `most`, and of these all, or as
// many as processors are idle.
struct Threads {
  int most;
  bool if_idle = false;
};

// Runs body(row, thread) for the rows 0 to count - 1, each in one thread: 0 is this one, and others
// help where the system grants them. Returns when all rows that were taken are done: all there are,
// unless a body returned false in this thread. No body may throw.
template <class Body>
void share_out(int64_t count, Threads threads, const Body& body) {
#if defined(__MINGW32__)
  threads.most = 1;  // winpthreads crashes where a thread is detached that has not begun
#endif
  std::shared_ptr<Rows> rows;
  try {
    if (threads.most > 1) rows = std::make_shared<Rows>(count, threads.most);
  } catch (const std::exception&) {  // std::bad_alloc
  }
  if (!rows) {
    for (int64_t row = 0; row < count && body(row, 0); ++row) {
    }
    return;
  }
  int helpers = 0, most = threads.most - 1;
  Looks looks;
  const auto start_more = [&] {
    if (helpers == most || (threads.if_idle && !looks.due())) return;
    int more = most - helpers;
    if (threads.if_idle) more = std::min(more, FASTSAMPLE_IDLE_PROCESSORS());
    for (; more > 0; --more) {
      const bool started = start_detached([rows, &body, thread = helpers + 1] {
        FASTSAMPLE_HELPER_BEGINS();
        work_on(*rows, body, thread, [] {});
      });
      if (!started) {
        most = helpers;  // which have to do
        return;
      }
      ++helpers;
    }
  };
  work_on(*rows, body, 0, start_more);
  rows->close();
}

}  // namespace fastsample
