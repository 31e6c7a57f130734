// Threads that help a call and come late: what csrc/abi/threads.h promises of them, with helpers
// that are held back. With a shared library as argument also that it is not unloaded under them
// (POSIX).
//
// Ends with "N passed, 0 failed".
#include <dlfcn.h>
#include <fastsample.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

static void helper_begins();
static std::vector<int> idle;  // processors, each time that a call looks, and then none
static int told_idle();
#define FASTSAMPLE_HELPER_BEGINS helper_begins
#define FASTSAMPLE_IDLE_PROCESSORS told_idle
#include "../../csrc/abi/threads.h"

using fastsample::share_out;

#if defined(__SANITIZE_THREAD__)
// Threads of a child that was forked beside others are what is tested.
extern "C" const char* __tsan_default_options() { return "die_after_fork=0"; }
#endif

static int passed, failed;

static void check(bool ok, const char* what, int line) {
  ok ? ++passed : ++failed;
  if (!ok) std::printf("FAILED %s:%d: %s\n", __FILE__, line, what);
}

#define CHECK(condition) check((condition), #condition, __LINE__)

static int told_idle() {
  if (idle.empty()) return 0;
  const int count = idle.front();
  idle.erase(idle.begin());
  return count;
}

static void sleep_us(int us) { std::this_thread::sleep_for(std::chrono::microseconds(us)); }

static std::atomic<bool> gate_open{true};
static std::atomic<int> begun{0}, ended{0}, delay_us{0};

struct Ended {
  ~Ended() { ++ended; }
};

static void helper_begins() {
  thread_local Ended at_end;
  (void)&at_end;
  const int number = begun++;
  while (!gate_open) sleep_us(100);
  const int delay = delay_us;  // which may be 0 in the next moment
  if (delay > 0) sleep_us(number * 7919 % delay);
}

static void wait_for_helpers(int count) {
  while (ended < count) sleep_us(100);
}

// A call does not wait for helpers that have taken no row, and they touch nothing of it later.
static void test_none_begins() {
  constexpr int kRows = 100, kThreads = 8;
  const int before = ended;
  gate_open = false;
  {
    // Freed with the call, so that a sanitizer sees who touches it.
    const auto thread_of = std::make_unique<std::vector<int>>(size_t(kRows), -1);
    share_out(kRows, {kThreads}, [&](int64_t row, int thread) {
      (*thread_of)[size_t(row)] = thread;
      return true;
    });
    CHECK(*thread_of == std::vector<int>(size_t(kRows), 0));
  }
  CHECK(ended == before);
  gate_open = true;
  wait_for_helpers(before + kThreads - 1);
}

// But it does for rows that are taken.
static void test_taken_rows_are_waited_for() {
  constexpr int kRows = 6;
  std::vector<int> done(kRows);
  std::atomic<bool> helped{false};
  share_out(kRows, {2}, [&](int64_t row, int thread) {
    if (thread == 0 && row == 0)
      while (!helped) sleep_us(100);
    if (thread == 1) {
      helped = true;
      sleep_us(20000);
    }
    done[size_t(row)] = 1;
    return true;
  });
  CHECK(helped && done == std::vector<int>(kRows, 1));
}

// Each row is done once, by whoever comes when.
static void test_any_delay() {
  int helpers = ended;
  for (int round = 0; round < 400; ++round) {
    const int rows = 1 + round % 37, threads = 1 + round % 9;
    delay_us = round % 4 ? 30 * (round % 11) : 0;
    std::vector<int> times(size_t(rows), 0);
    std::vector<char> seen(size_t(threads), 0);
    share_out(rows, {threads}, [&](int64_t row, int thread) {
      ++times[size_t(row)];
      seen[size_t(thread)] = 1;
      return true;
    });
    CHECK(times == std::vector<int>(size_t(rows), 1));
    helpers += threads - 1;
  }
  delay_us = 0;
  wait_for_helpers(helpers);
}

// A call that leaves the number to the library starts one for each idle processor, and more when
// others have become idle.
static void test_idle_processors_are_used() {
  const auto row = [](int64_t, int) {
    sleep_us(100);
    return true;
  };
  for (const int first : {0, 1, 2, 9})
    for (const int later : {0, 1, 9}) {
      const int begun_before = begun, ended_before = ended;
      idle = {first, later};
      share_out(20, {4, true}, row);
      const int started = std::min(first + later, 3);
      wait_for_helpers(ended_before + started);
      CHECK(begun - begun_before == started);
    }
}

// Beside as many processes that compute as there are processors, none is idle.
static void test_busy_processors_are_not_idle() {
#if defined(__linux__)
  const int processors = int(sysconf(_SC_NPROCESSORS_ONLN));
  const int before = fastsample::idle_processors();
  CHECK(before == INT_MAX || (before >= 0 && before < processors));
  if (before == INT_MAX) return;  // the system does not say
  std::vector<pid_t> busy;
  for (int i = 0; i < processors; ++i) {
    busy.push_back(fork());
    if (busy.back() == 0)
      for (volatile bool forever = true; forever;) {
      }
  }
  CHECK(fastsample::idle_processors() == 0);
  for (const pid_t child : busy) {
    if (child < 0) continue;
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
#endif
}

// After a row that fails no more are taken, and those before it are done.
static void test_stop() {
  for (int round = 0; round < 200; ++round) {
    const int rows = 40, bad = round % rows;
    std::vector<int> times(size_t(rows), 0);
    std::atomic<int> end{rows};
    share_out(rows, {1 + round % 5}, [&](int64_t row, int) {
      if (row >= end) return false;
      ++times[size_t(row)];
      if (row != bad) return true;
      end = bad;
      return false;
    });
    bool before = true, once = true;
    for (int i = 0; i <= bad; ++i) before &= times[size_t(i)] == 1;
    for (int i = 0; i < rows; ++i) once &= times[size_t(i)] <= 1;
    CHECK(before && once);
  }
}

// True where a child process that runs body ends well.
template <class Body>
static bool in_child(Body body) {
  int status = -1;
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) std::exit(body() ? 0 : 1);  // with all that an exit destroys
  return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
         WEXITSTATUS(status) == 0;
}

// A process may end, or fork, while helpers have yet to begin.
static bool exit_before_helpers() {
  delay_us = 300;
  for (int round = 0; round < 5; ++round) share_out(round, {6}, [](int64_t, int) { return true; });
  return true;
}

static bool fork_before_helpers() {
  const int before = ended;
  gate_open = false;
  int sum = 0;
  const auto add = [&](int64_t row, int) {
    sum += int(row);
    return true;
  };
  share_out(5, {4}, add);
#if defined(__SANITIZE_ADDRESS__)
  // Its allocator may be locked by a thread that starts, and stays so in the child.
  while (begun < 3) sleep_us(100);
#endif
  const bool ok = in_child([&] {
    gate_open = true;
    share_out(1, {4}, add);
    share_out(5, {1}, add);
#if defined(__SANITIZE_ADDRESS__)
    std::_Exit(sum == 20 ? 0 : 1);  // what the parent's helpers hold is not leaked here
#endif
    return sum == 20;
  });
  gate_open = true;
  wait_for_helpers(before + 3);
  return ok;
}

// The library stays while there are threads that may run its code.
static bool unload(const char* path) {
  using Sample = decltype(&fs_sample);
  void* library = dlopen(path, RTLD_NOW);
  if (!library) return false;
  const auto sample = reinterpret_cast<Sample>(dlsym(library, "fs_sample"));
  std::vector<float> row(16, 0.0f);
  const std::vector<fs_draw> draws(
      16, fs_draw{sizeof(fs_draw), 0.5, 0.0, nullptr, nullptr, 0, nullptr, 0, nullptr});
  std::vector<int64_t> tokens(16);
  const fs_chain chain = {sizeof(fs_chain), nullptr, 0, 1};
  const fs_logits logits = {sizeof(fs_logits), row.data(), 16, 1, 1, 0, FS_FLOAT32, 0};
  const bool ok = sample(&logits, &chain, 1, draws.data(), 16, 0, tokens.data()) == FS_OK;
  dlclose(library);
  sleep_us(2000);
  return ok;
}

int main(int count, char** arguments) {
  for (int round = 0; count > 1 && round < 50; ++round)
    CHECK(in_child([&] { return unload(arguments[1]); }));
  CHECK(in_child(exit_before_helpers));
  CHECK(in_child(fork_before_helpers));
  test_none_begins();
  test_taken_rows_are_waited_for();
  test_any_delay();
  test_idle_processors_are_used();
  test_busy_processors_are_not_idle();
  test_stop();
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
