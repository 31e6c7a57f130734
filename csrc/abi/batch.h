// Rows that are drawn from, shared out over threads: all of them, or up to the first that fails.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>

#include "abi/call.h"
#include "abi/check.h"
#include "abi/threads.h"
#include "draw.h"

namespace fastsample {

// Puts values that lie `stride` bytes apart next to each other.
template <class T>
void gather(const char* from, int64_t stride, int64_t count, char* to) {
  for (int64_t i = 0; i < count; ++i) std::memcpy(to + i * sizeof(T), from + i * stride, sizeof(T));
}

// Row i, its values next to each other.
inline const char* values_of(const fs_logits& logits, int64_t i, Workspace& ws) {
  const char* data = static_cast<const char*>(logits.data);
  const int64_t size = element_size(logits.dtype);
  // Unsigned, so that the stride of a single row, whatever it is, is multiplied by 0 in peace.
  data += ptrdiff_t(uint64_t(i) * uint64_t(logits.row_stride) * uint64_t(size));
  const int64_t stride = logits.element_stride ? logits.element_stride : size;
  if (stride == size || logits.vocab <= 1) return data;
  const size_t bytes = size_t(logits.vocab) * size_t(size);
  char* to = reinterpret_cast<char*>(ws.gathered.reserve(bytes / sizeof(uint64_t) + 1));
  // Of a size that is known when it is compiled, no call of memcpy is left.
  if (size == 2)
    gather<uint16_t>(data, stride, logits.vocab, to);
  else if (size == 4)
    gather<uint32_t>(data, stride, logits.vocab, to);
  else
    gather<uint64_t>(data, stride, logits.vocab, to);
  return to;
}

// A Source has `logits`, and for row i: row(i, ws), cut(row, i, ws), u(i), and state(i), which is
// null where none is kept. tell(i, ws, row, cut, token) writes what else it wants of a draw, and is
// false where the row turns out to be bad; tell_nothing(i) does so of a bad row.
template <class Source>
class Batch {
 public:
  Batch(Source& source, bool mark, Outcome* drawn)
      : source_(source), mark_(mark), drawn_(drawn), end_(source.logits->rows) {}

  // Draws all rows, in these threads. FS_OK, or what is wrong with the lowest row that failed.
  fs_status run(Threads threads) {
    if (threads.most <= 1) {
      Workspace& own = workspaces().own;
      for (int64_t i = 0; i < source_.logits->rows && draw_one(i, own); ++i) {
      }
    } else {
      Workspaces& kept = workspaces();
      kept.reserve(threads.most);
      share_out(source_.logits->rows, threads, [&](int64_t i, int thread) {
        const DefaultFloatMode mode;  // of a thread that helps
        return draw_one(i, kept.of(thread));
      });
    }
    if (status_ == FS_OK) return FS_OK;
    if (status_ == FS_NO_MEMORY) throw std::bad_alloc();
    return fail(status_, describe(failed_, *source_.logits, end_.load(std::memory_order_relaxed)));
  }

 private:
  // Draws a row; says whether those after it are still of interest. Those before it are drawn
  // anyway, so that the lowest that fails is found whatever the timing.
  bool draw_one(int64_t i, Workspace& ws) noexcept {
    if (i >= end_.load(std::memory_order_relaxed)) return false;
    try {
      const double u = source_.u(i);  // first: nothing waits for it while the row is read
      Row row = source_.row(i, ws);
      const fs_status status = draw_from(row, u, i, ws);
      return status == FS_OK || fail_at(i, status, row);
    } catch (...) {  // nothing but std::bad_alloc is thrown
      return fail_at(i, FS_NO_MEMORY, Row{});
    }
  }

  bool fail_at(int64_t i, fs_status status, const Row& row) {
    const std::lock_guard<std::mutex> lock(failing_);
    if (i < end_.load(std::memory_order_relaxed)) {
      end_.store(i, std::memory_order_relaxed);
      status_ = status;
      failed_ = row;
    }
    return false;
  }

  fs_status draw_from(Row& row, double u, int64_t i, Workspace& ws) {
    Outcome& outcome = drawn_[i];
    const double* state = source_.state(i);
    if (state) std::copy_n(state, 2, outcome.state);
    if (row.defect != Defect::kNone) return refuse(i);
    const Cut kept = source_.cut(row, i, ws);
    const Drawn drawn = draw(row, kept, u, ws);
    if (drawn.token < 0 || drawn.token >= source_.logits->vocab) return FS_BAD_LOGITS;
    if (!source_.tell(i, ws, row, kept, drawn.token)) return refuse(i);
    outcome.token = drawn.token;
    if (state) update_state(kept, drawn.q, outcome.state);
    return FS_OK;
  }

  fs_status refuse(int64_t i) {
    drawn_[i].token = -1;
    source_.tell_nothing(i);
    return mark_ ? FS_OK : FS_BAD_LOGITS;
  }

  Source& source_;
  const bool mark_;
  Outcome* drawn_;
  std::atomic<int64_t> end_;  // of the rows of interest
  std::mutex failing_;
  fs_status status_ = FS_OK;
  Row failed_;
};

// The threads of a call that asks for `asked`; 0 leaves it to the library.
inline Threads threads_of(int32_t asked, const fs_logits& logits) {
  const int most = int(std::min<int64_t>(logits.rows, FS_MAX_THREADS));
  if (asked > 0) return {std::min(asked, most)};
  // Starting a thread takes tens of microseconds, in which some 500,000 logits are read.
  constexpr double kLogitsPerThread = 1 << 20;
  const double worth = double(logits.rows) * double(logits.vocab) / kLogitsPerThread;
  if (most == 1 || worth < 2.0) return {1};
  return {std::min({most, available_threads(), int(std::min(worth, double(most)))}), true};
}

}  // namespace fastsample
