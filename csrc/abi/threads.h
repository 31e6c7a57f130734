// Threads that live as long as one call: no pool, so that an import starts nothing, a fork breaks
// nothing, and nothing competes with the host's own threads between calls.
#pragma once

#include <exception>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
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

// Runs body(0) here and body(1) to body(n - 1) on threads of their own, and waits for all. Where
// the system refuses a thread, those that there are have to do: a body takes work while there is
// some. No body may throw.
template <class Body>
void run_on_threads(int n, const Body& body) {
  if (n == 1) return body(0);
  std::vector<std::thread> others;
  try {
    others.reserve(size_t(n - 1));
    for (int i = 1; i < n; ++i) others.emplace_back([&body, i] { body(i); });
  } catch (const std::exception&) {  // std::system_error, std::bad_alloc
  }
  body(0);
  for (std::thread& other : others) other.join();
}

}  // namespace fastsample
