// The C ABI of stateless calls: checks arguments, walks rows, turns failures into codes. No
// arithmetic.
#include "fastsample.h"

#include <cmath>
#include <vector>

#include "abi/pasts.h"
#include "abi/telling.h"
#include "abi/words.h"
#include "philox.h"
#include "simd/dispatch.h"
#include "softmax.h"

namespace fastsample {
namespace {

static_assert(int(kF32) == FS_FLOAT32 && int(kF16) == FS_FLOAT16 && int(kBF16) == FS_BFLOAT16 &&
                  int(kF64) == FS_FLOAT64,
              "an fs_dtype is the RowType of the same number");
static_assert(sizeof(fs_stage) == 48, "fastsample/records.py spells this layout as a dtype");

struct Arguments {
  const fs_logits* logits;
  const fs_chain* chains;
  int64_t chain_count;
  const fs_draw* draws;
  const Kernels* kernels;
  const fs_details* details = nullptr;  // what is asked for beside tokens, or null

  Row row(int64_t i, Workspace& ws) const { return row(i, ws, ws.block_max, ws.patch); }
  // The same into other memory than that of the row that is drawn from.
  Row row(int64_t i, Workspace& ws, Buffer<float>& block_max, Patch& patch) const {
    Edits edits;
    Allowed allowed;
    if (draws) {
      const fs_draw& draw = element_at(draws, i);
      edits = {draw.edits, size_t(draw.edit_count)};
      if (draw.past) edits.table = draw.past->history.edits();
      if (draw.allowed || draw.allowed_count) allowed = {draw.allowed, size_t(draw.allowed_count)};
    }
    return scan(kernels, RowType(logits->dtype), values_of(*logits, i, ws), size_t(logits->vocab),
                block_max, &patch, edits, allowed);
  }
  const fs_chain& chain(int64_t i) const { return element_at(chains, chain_count == 1 ? 0 : i); }
  double* state(int64_t i) const { return draws ? element_at(draws, i).state : nullptr; }
  double u(int64_t i) const { return element_at(draws, i).u; }
  Cut cut(Row& row, int64_t i, Workspace& ws) const {
    const double u_xtc = draws ? element_at(draws, i).u_xtc : 0.0;
    return fastsample::cut(row, chain(i), u_xtc, state(i), ws);
  }

  bool tell(int64_t i, Workspace& ws, Row& row, const Cut& kept, int64_t token) const {
    return tell_of(*this, details, i, ws, row, kept, token);
  }
  void tell_nothing(int64_t i) const { tell_nothing_of(*logits, details, i); }
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
    if (error.empty()) error = check_states(draws, logits->rows, chains, chain_count);
    if (!error.empty()) return fail(FS_INVALID_ARGUMENT, error);
    const Kernels* kernels = active_kernels();
    if (!kernels) return fail(FS_INVALID_ARGUMENT, isa_error());
    const HoldPasts held(draws, draws ? logits->rows : 0);
    error = held.check(logits->vocab);
    if (!error.empty()) return fail(FS_INVALID_ARGUMENT, error);
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

const char* fs_last_error(void) { return last_error().c_str(); }

double fs_uniform(uint64_t seed, uint64_t stream, uint64_t offset) {
  return uniform(seed, stream, offset);
}

double fs_uniform_for(uint64_t seed, uint64_t stream, uint64_t offset, uint64_t use) {
  return uniform(seed, stream, offset, use);
}

namespace {

fs_status draw_all(const fs_logits* logits, const fs_chain* chains, int64_t chain_count,
                   const fs_draw* draws, int32_t threads, uint32_t flags, int64_t* tokens,
                   const fs_details* details) {
  const auto body = [&](Arguments args, Workspace& ws) {
    args.details = details;
    const std::string error = check_call(threads, flags);
    if (!error.empty()) return fail(FS_INVALID_ARGUMENT, error);
    if (logits->rows == 0) return FS_OK;
    if (!tokens) return fail(FS_INVALID_ARGUMENT, "tokens must not be null");
    // Kept aside until all rows are done: a failing call writes nothing.
    Outcome* drawn = ws.drawn.reserve(size_t(logits->rows));
    const fs_status status = Batch<const Arguments>(args, flags & FS_MARK_BAD_ROWS, drawn)
                                 .run(threads_of(threads, *logits));
    if (status != FS_OK) return status;
    for (int64_t i = 0; i < logits->rows; ++i) {
      tokens[i] = drawn[i].token;
      if (args.state(i)) std::copy_n(drawn[i].state, 2, args.state(i));
    }
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
  last_error().clear();
  last_error().shrink_to_fit();
  workspaces() = Workspaces{};
}
