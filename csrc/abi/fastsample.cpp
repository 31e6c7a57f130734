// The C ABI: checks arguments, walks rows, turns failures into codes. No arithmetic.
#include "fastsample.h"

#include <algorithm>
#include <atomic>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "abi/check.h"
#include "abi/threads.h"
#include "abi/words.h"
#include "details.h"
#include "draw.h"
#include "philox.h"
#include "simd/dispatch.h"
#include "softmax.h"

#if defined(__SSE__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

namespace fastsample {
namespace {

static_assert(int(kF32) == FS_FLOAT32 && int(kF16) == FS_FLOAT16 && int(kBF16) == FS_BFLOAT16 &&
                  int(kF64) == FS_FLOAT64,
              "an fs_dtype is the RowType of the same number");
static_assert(sizeof(fs_stage) == 48, "fastsample/params.py spells this layout as a dtype");

thread_local std::string last_error;

// What a thread keeps between calls: its own workspace, and one for each thread that has helped it.
struct Workspaces {
  Workspace own;
  std::vector<std::unique_ptr<Workspace>> helpers;

  void reserve(int threads) {
    while (helpers.size() + 1 < size_t(threads)) helpers.push_back(std::make_unique<Workspace>());
  }
  Workspace& of(int thread) { return thread ? *helpers[size_t(thread - 1)] : own; }
};

Workspaces& workspaces() {
  thread_local Workspaces instance;
  return instance;
}

fs_status fail(fs_status status, const std::string& message) {
  last_error = message;
  return status;
}

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
    last_error.clear();
    const DefaultFloatMode mode;
    return body();
  } catch (const std::bad_alloc&) {
    return fail(FS_NO_MEMORY, "out of memory");  // short enough to need none
  } catch (...) {
    return fail(FS_INVALID_ARGUMENT, "internal error");
  }
}

// Value j of row i of float64 logits.
double float64_at(const fs_logits& logits, int64_t i, size_t j) {
  const int64_t size = element_size(FS_FLOAT64);
  const int64_t stride = logits.element_stride ? logits.element_stride : size;
  const uint64_t row = uint64_t(i) * uint64_t(logits.row_stride) * uint64_t(size);
  const char* at = static_cast<const char*>(logits.data) + ptrdiff_t(row) + int64_t(j) * stride;
  return *reinterpret_cast<const double*>(at);
}

std::string describe(const Row& row, const fs_logits& logits, int64_t index) {
  const std::string where = "logits row " + std::to_string(index) + " must ";
  const std::string at = " at token " + std::to_string(row.defect_at);
  switch (row.defect) {
    case Defect::kNan: return where + "not contain NaN, got one" + at;
    case Defect::kPositiveInfinity:
      if (logits.dtype == FS_FLOAT64) {
        const double value = float64_at(logits, index, row.defect_at);
        if (value <= DBL_MAX) return where + "not go beyond float32, got " + show(value) + at;
      }
      return where + "not contain +inf, got one" + at;
    case Defect::kNothingFinite: return where + "have a finite value, got only -inf";
    default: return where + "not change while it is sampled";
  }
}

struct Arguments {
  const fs_logits* logits;
  const fs_chain* chains;
  int64_t chain_count;
  const fs_draw* draws;
  const Kernels* kernels;

  Row row(int64_t i, Workspace& ws) const { return row(i, ws, ws.block_max, ws.patch); }
  // The same into other memory than that of the row that is drawn from.
  Row row(int64_t i, Workspace& ws, Buffer<float>& block_max, Patch& patch) const {
    Edits edits;
    Allowed allowed;
    if (draws) {
      const fs_draw& draw = element_at(draws, i);
      edits = {draw.edits, size_t(draw.edit_count)};
      if (draw.allowed || draw.allowed_count) allowed = {draw.allowed, size_t(draw.allowed_count)};
    }
    return scan(kernels, RowType(logits->dtype), values(i, ws), size_t(logits->vocab), block_max,
                &patch, edits, allowed);
  }
  // As it came.
  Row raw(int64_t i, Workspace& ws) const {
    return scan(kernels, RowType(logits->dtype), values(i, ws), size_t(logits->vocab), ws.raw_max);
  }
  // Of a row, next to each other.
  const char* values(int64_t i, Workspace& ws) const {
    const char* data = static_cast<const char*>(logits->data);
    const int64_t size = element_size(logits->dtype);
    // Unsigned, so that the stride of a single row, whatever it is, is multiplied by 0 in peace.
    data += ptrdiff_t(uint64_t(i) * uint64_t(logits->row_stride) * uint64_t(size));
    const int64_t stride = logits->element_stride ? logits->element_stride : size;
    return stride != size && logits->vocab > 1 ? gather(data, stride, size, ws) : data;
  }
  // Values that are not next to each other, brought together.
  const char* gather(const char* data, int64_t stride, int64_t size, Workspace& ws) const {
    const size_t bytes = size_t(logits->vocab) * size_t(size);
    char* to = reinterpret_cast<char*>(ws.gathered.reserve(bytes / sizeof(uint64_t) + 1));
    for (int64_t i = 0; i < logits->vocab; ++i)
      std::memcpy(to + i * size, data + i * stride, size_t(size));
    return to;
  }
  const fs_chain& chain(int64_t i) const { return element_at(chains, chain_count == 1 ? 0 : i); }
  double* state(int64_t i) const { return draws ? element_at(draws, i).state : nullptr; }
  double u(int64_t i) const { return element_at(draws, i).u; }
  Cut cut(Row& row, int64_t i, Workspace& ws) const {
    const double u_xtc = draws ? element_at(draws, i).u_xtc : 0.0;
    return fastsample::cut(row, chain(i), u_xtc, state(i), ws);
  }
};

// How many threads serve a call that asks for `asked`; 0 leaves it to the library.
int thread_count(int32_t asked, const fs_logits& logits) {
  const int most = int(std::min<int64_t>(logits.rows, FS_MAX_THREADS));
  if (asked > 0) return std::min(asked, most);
  // Starting a thread takes tens of microseconds, in which some 500,000 logits are read.
  constexpr double kLogitsPerThread = 1 << 20;
  const double worth = double(logits.rows) * double(logits.vocab) / kLogitsPerThread;
  if (most == 1 || worth < 2.0) return 1;
  return std::min({most, available_threads(), int(std::min(worth, double(most)))});
}

// What is asked for of a row of a batch.
Details details_of(const fs_details& all, int64_t i, int64_t vocab) {
  const auto at = [i](auto* first, int64_t stride) { return first ? first + i * stride : first; };
  Details one;
  one.raw = all.logprobs == FS_LOGPROBS_RAW;
  one.logprob = at(all.logprob, 1);
  one.rank = at(all.rank, 1);
  one.top = size_t(all.top_count);
  one.top_ids = at(all.top_ids, all.top_count);
  one.top_logprobs = at(all.top_logprobs, all.top_count);
  one.support = at(all.support, vocab);
  one.support_count = at(all.support_count, 1);
  one.log_mass = at(all.log_mass, 1);
  return one;
}

// Draws rows until one fails.
class Batch {
 public:
  Batch(const Arguments& args, bool mark, int64_t* drawn, double* states, const fs_details* details)
      : args_(args),
        mark_(mark),
        drawn_(drawn),
        states_(states),
        details_(details),
        end_(args.logits->rows) {}

  // Draws a row; says whether those after it are still of interest. Rows are taken in order, so the
  // lowest that fails is found whatever the timing.
  bool draw_one(int64_t i, Workspace& ws) noexcept {
    if (i >= end_.load(std::memory_order_relaxed)) return false;
    const DefaultFloatMode mode;  // of a thread that helps
    Row row;
    const fs_status status = draw_row(i, ws, row);
    if (status == FS_OK) return true;
    const std::lock_guard<std::mutex> lock(failing_);
    if (i < end_.load(std::memory_order_relaxed)) {
      end_.store(i, std::memory_order_relaxed);
      status_ = status;
      failed_ = row;
    }
    return false;
  }

  // Once all are drawn: FS_OK, or what is wrong with the lowest row that failed.
  fs_status finish() const {
    if (status_ == FS_OK) return FS_OK;
    if (status_ == FS_NO_MEMORY) throw std::bad_alloc();
    return fail(status_, describe(failed_, *args_.logits, end_.load(std::memory_order_relaxed)));
  }

 private:
  fs_status draw_row(int64_t i, Workspace& ws, Row& row) {
    try {
      row = args_.row(i, ws);
      double* state = args_.state(i) ? states_ + 2 * i : nullptr;
      if (state) std::copy_n(args_.state(i), 2, state);
      if (row.defect != Defect::kNone) return refuse(i);
      const Cut kept = args_.cut(row, i, ws);
      const Drawn drawn = draw(row, kept, args_.u(i), ws);
      if (drawn.token < 0 || drawn.token >= args_.logits->vocab) return FS_BAD_LOGITS;
      if (details_ && !tell(i, ws, row, kept, drawn.token)) return refuse(i);
      drawn_[i] = drawn.token;
      update_state(kept, drawn.q, state);
      return FS_OK;
    } catch (...) {  // nothing but std::bad_alloc is thrown
      return FS_NO_MEMORY;
    }
  }

  fs_status refuse(int64_t i) {
    drawn_[i] = -1;
    if (details_) write_no_details(details_of(*details_, i, args_.logits->vocab));
    return mark_ ? FS_OK : FS_BAD_LOGITS;
  }

  // Writes what is asked for of a row; false where it was bad as it came, which it is then.
  bool tell(int64_t i, Workspace& ws, Row& row, const Cut& kept, int64_t token) {
    const Details details = details_of(*details_, i, args_.logits->vocab);
    const bool raw = details.raw && details.wants_logprobs();
    const Row as_it_came = raw && (row.patch || row.lowered) ? args_.raw(i, ws) : row;
    if (as_it_came.defect != Defect::kNone) {
      row = as_it_came;
      return false;
    }
    write_details(row, kept, token, as_it_came, ws, details);
    if (!details.log_mass) return true;
    const Row whole = row.lowered ? args_.row(i, ws, ws.raw_max, ws.raw_patch) : row;
    *details.log_mass = log_mass(row, kept, whole, ws);
    return true;
  }

  const Arguments& args_;
  const bool mark_;
  int64_t* drawn_;
  double* states_;             // two numbers a row
  const fs_details* details_;  // or null
  std::atomic<int64_t> end_;   // of the rows of interest
  std::mutex failing_;
  fs_status status_ = FS_OK;
  Row failed_;
};

// Writes write(row, temperature, out) for each row.
template <class Write>
fs_status write_all(const fs_logits* logits, double temperature, float* out, Write write) {
  return guarded([&] {
    const std::string error = check_logits(logits);
    if (!error.empty()) return fail(FS_INVALID_ARGUMENT, error);
    if (!(temperature > 0.0 && std::isfinite(temperature)))
      return fail(FS_INVALID_ARGUMENT,
                  "temperature must be finite and > 0, got " + show(temperature));
    const Kernels* kernels = active_kernels();
    if (!kernels) return fail(FS_INVALID_ARGUMENT, isa_error());
    if (logits->rows == 0) return FS_OK;
    if (!out) return fail(FS_INVALID_ARGUMENT, "out must not be null");
    const Arguments args{logits, nullptr, 0, nullptr, kernels};
    Workspace& ws = workspaces().own;
    // All are scanned first: nothing is written where one is bad.
    std::vector<Row> rows(size_t(logits->rows));
    for (int64_t i = 0; i < logits->rows; ++i) {
      Row& row = rows[size_t(i)] = args.row(i, ws);
      if (row.defect != Defect::kNone) return fail(FS_BAD_LOGITS, describe(row, *logits, i));
    }
    for (int64_t i = 0; i < logits->rows; ++i) {
      Row& row = rows[size_t(i)];
      if (logits->rows > 1) row = args.row(i, ws);  // others have its memory
      write(row, temperature, out + i * logits->vocab);
    }
    return FS_OK;
  });
}

// Checks what all entry points share, then runs body(arguments, workspace).
template <class Body>
fs_status with_arguments(const fs_logits* logits, const fs_chain* chains, int64_t chain_count,
                         const fs_draw* draws, bool drawing, Body body) {
  return guarded([&] {
    std::string error = check_logits(logits);
    if (error.empty()) error = check_chains(chains, chain_count, logits->rows);
    if (error.empty()) error = check_draws(draws, logits->rows, logits->vocab, drawing);
    if (!error.empty()) return fail(FS_INVALID_ARGUMENT, error);
    const Kernels* kernels = active_kernels();
    if (!kernels) return fail(FS_INVALID_ARGUMENT, isa_error());
    return body(Arguments{logits, chains, chain_count, draws, kernels}, workspaces().own);
  });
}

}  // namespace
}  // namespace fastsample

using namespace fastsample;

const char* fs_version(void) { return FASTSAMPLE_VERSION; }

const char* fs_isa(void) {
  const Kernels* kernels = active_kernels();
  return kernels ? kernels->isa : "";
}

const char* fs_isas(void) {
  try {
    return supported_isas();
  } catch (...) {
    return "";
  }
}

fs_status fs_force_isa(const char* name) {
  return guarded([&] {
    if (!name) return fail(FS_INVALID_ARGUMENT, "isa must not be null");
    const std::string error = force_isa(name);
    return error.empty() ? FS_OK : fail(FS_INVALID_ARGUMENT, error);
  });
}

const char* fs_last_error(void) { return last_error.c_str(); }

double fs_uniform(uint64_t seed, uint64_t stream, uint64_t offset) {
  return uniform(seed, stream, offset);
}

namespace {

fs_status draw_all(const fs_logits* logits, const fs_chain* chains, int64_t chain_count,
                   const fs_draw* draws, int32_t threads, uint32_t flags, int64_t* tokens,
                   const fs_details* details) {
  const auto body = [&](Arguments args, Workspace& ws) {
    if (threads < 0)
      return fail(FS_INVALID_ARGUMENT, "threads must be >= 0, got " + std::to_string(threads));
    if (flags & ~uint32_t(FS_MARK_BAD_ROWS))
      return fail(FS_INVALID_ARGUMENT,
                  "flags must be 0 or FS_MARK_BAD_ROWS, got " + std::to_string(flags));
    if (logits->rows == 0) return FS_OK;
    if (!tokens) return fail(FS_INVALID_ARGUMENT, "tokens must not be null");
    // Kept aside until all rows are done: a failing call writes nothing.
    int64_t* drawn = ws.tokens.reserve(size_t(logits->rows));
    double* states = ws.states.reserve(2 * size_t(logits->rows));
    Batch batch(args, flags & FS_MARK_BAD_ROWS, drawn, states, details);
    const int count = thread_count(threads, *logits);
    Workspaces& kept = workspaces();
    kept.reserve(count);
    share_out(logits->rows, count,
              [&](int64_t i, int thread) { return batch.draw_one(i, kept.of(thread)); });
    const fs_status status = batch.finish();
    if (status != FS_OK) return status;
    std::copy(drawn, drawn + logits->rows, tokens);
    for (int64_t i = 0; i < logits->rows; ++i)
      if (args.state(i)) std::copy_n(states + 2 * i, 2, args.state(i));
    return FS_OK;
  };
  return with_arguments(logits, chains, chain_count, draws, true, body);
}

}  // namespace

fs_status fs_sample(const fs_logits* logits, const fs_chain* chains, int64_t chain_count,
                    const fs_draw* draws, int32_t threads, uint32_t flags, int64_t* tokens) {
  return draw_all(logits, chains, chain_count, draws, threads, flags, tokens, nullptr);
}

fs_status fs_sample_details(const fs_logits* logits, const fs_chain* chains, int64_t chain_count,
                            const fs_draw* draws, int32_t threads, uint32_t flags, int64_t* tokens,
                            const fs_details* details) {
  const fs_status status = guarded([&] {
    std::string error = check_logits(logits);
    if (error.empty()) error = check_details(details, logits->vocab);
    return error.empty() ? FS_OK : fail(FS_INVALID_ARGUMENT, error);
  });
  if (status != FS_OK) return status;
  return draw_all(logits, chains, chain_count, draws, threads, flags, tokens, details);
}

fs_status fs_probs(const fs_logits* logits, const fs_chain* chains, int64_t chain_count,
                   const fs_draw* draws, float* probs) {
  const auto body = [&](Arguments args, Workspace& ws) {
    if (logits->rows == 0) return FS_OK;
    if (!probs) return fail(FS_INVALID_ARGUMENT, "probs must not be null");
    // Several rows twice, so that nothing is written where one is bad or memory runs out.
    enum { kTry, kWrite, kPasses };
    for (int pass = logits->rows > 1 ? kTry : kWrite; pass < kPasses; ++pass)
      for (int64_t i = 0; i < logits->rows; ++i) {
        Row row = args.row(i, ws);
        if (row.defect != Defect::kNone) return fail(FS_BAD_LOGITS, describe(row, *logits, i));
        const Cut kept = args.cut(row, i, ws);
        if (pass == kWrite)
          write_probs(row, kept, ws, probs + i * logits->vocab);
        else
          weigh_kept(row, kept, ws);
      }
    return FS_OK;
  };
  return with_arguments(logits, chains, chain_count, draws, false, body);
}

fs_status fs_survivors(const fs_logits* logits, const fs_chain* chain, const fs_draw* one,
                       int64_t capacity, int64_t* ids, float* probs, int64_t* count) {
  const auto body = [&](Arguments args, Workspace& ws) {
    if (logits->rows != 1)
      return fail(FS_INVALID_ARGUMENT,
                  "logits.rows must be 1, got " + std::to_string(logits->rows));
    if (capacity < 0)
      return fail(FS_INVALID_ARGUMENT, "capacity must be >= 0, got " + std::to_string(capacity));
    if (!count || (capacity > 0 && (!ids || !probs)))
      return fail(FS_INVALID_ARGUMENT, "ids, probs and count must not be null");
    Row row = args.row(0, ws);
    if (row.defect != Defect::kNone) return fail(FS_BAD_LOGITS, describe(row, *logits, 0));
    const Cut kept = args.cut(row, 0, ws);
    *count = int64_t(write_survivors(row, kept, ws, size_t(capacity), ids, probs));
    if (*count > capacity)
      return fail(FS_INVALID_ARGUMENT, "capacity must be at least " + std::to_string(*count) +
                                           ", got " + std::to_string(capacity));
    return FS_OK;
  };
  // Of other than one row, which is refused, nobody knows how many draws there are.
  const bool single = logits && logits->rows == 1;
  return with_arguments(logits, chain, 1, single ? one : nullptr, false, body);
}

fs_status fs_softmax(const fs_logits* logits, double temperature, float* out) {
  return write_all(logits, temperature, out, write_softmax);
}

fs_status fs_log_softmax(const fs_logits* logits, double temperature, float* out) {
  return write_all(logits, temperature, out, write_log_softmax);
}

void fs_free_thread_buffers(void) {
  last_error.clear();
  last_error.shrink_to_fit();
  workspaces() = Workspaces{};
}
