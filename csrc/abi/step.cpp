// The C ABI of a step: the next token of many sequences at once.
#include "abi/check.h"
#include "abi/fields.h"
#include "abi/sampler.h"
#include "abi/telling.h"
#include "abi/words.h"
#include "philox.h"
#include "simd/dispatch.h"

namespace fastsample {

namespace {

// Holds all samplers of a call, or those before the first that cannot be held.
class HoldAll {
 public:
  HoldAll(fs_sampler* const* samplers, int64_t count) : samplers_(samplers) {
    while (count_ < count && samplers[count_] &&
           !samplers[count_]->held.exchange(true, std::memory_order_acquire))
      ++count_;
  }
  ~HoldAll() {
    for (int64_t i = 0; i < count_; ++i) samplers_[i]->held.store(false, std::memory_order_release);
  }
  HoldAll(const HoldAll&) = delete;
  HoldAll& operator=(const HoldAll&) = delete;
  int64_t count() const { return count_; }

 private:
  fs_sampler* const* samplers_;
  int64_t count_ = 0;
};

// What both allow, in memory of the workspace.
Allowed both(Allowed a, Allowed b, Workspace& ws) {
  const size_t size = std::min(a.size, b.size);
  if (!a.word || !b.word) return {a.word ? a.word : b.word, size};
  const size_t words = (size + 31) / 32;
  uint32_t* word = ws.allowed.reserve(words);
  for (size_t i = 0; i < words; ++i) word[i] = a.word[i] & b.word[i];
  return {word, size};
}

struct Steps {
  const fs_logits* logits;
  fs_sampler* const* samplers;
  const fs_masks* masks;  // or null
  const fs_details* details;
  const Kernels* kernels;

  Row row(int64_t i, Workspace& ws) const { return row(i, ws, ws.block_max, ws.patch); }
  // The same into other memory than that of the row that is drawn from.
  Row row(int64_t i, Workspace& ws, Buffer<float>& block_max, Patch& patch) const {
    const Edits edits{nullptr, 0, samplers[i]->history.edits()};
    return scan(kernels, RowType(logits->dtype), values_of(*logits, i, ws), size_t(logits->vocab),
                block_max, &patch, edits, allowed(i, ws));
  }
  Allowed allowed(int64_t i, Workspace& ws) const {
    const fs_sampler& sampler = *samplers[i];
    Allowed own, given;
    if (sampler.masked) own = {sampler.allowed.data(), 32 * sampler.allowed.size()};
    if (!masks) return own;
    if (masks->allowed) given.word = masks->allowed + i * masks->row_stride;
    if (masks->allowed || masks->allowed_count) given.size = size_t(masks->allowed_count);
    return both(own, given, ws);
  }
  const double* state(int64_t i) const {
    return samplers[i]->stateful ? samplers[i]->state : nullptr;
  }
  double u(int64_t i) const {
    const fs_sampler& sampler = *samplers[i];
    return uniform(sampler.seed, sampler.stream, sampler.offset);
  }
  Cut cut(Row& row, int64_t i, Workspace& ws) const {
    const fs_sampler& sampler = *samplers[i];
    const double coin =
        sampler.has_coin ? uniform(sampler.seed, sampler.stream, sampler.offset, kCoin) : 0.0;
    return fastsample::cut(row, sampler.chain, coin, state(i), ws);
  }
  bool tell(int64_t i, Workspace& ws, Row& row, const Cut& kept, int64_t token) const {
    return tell_of(*this, details, i, ws, row, kept, token);
  }
  void tell_nothing(int64_t i) const { tell_nothing_of(*logits, details, i); }
};

void move(fs_sampler& sampler, const Outcome& outcome) {
  if (outcome.token < 0) return;
  const auto id = int32_t(outcome.token);
  sampler.take(&id, 1);
  if (sampler.stateful) std::copy_n(outcome.state, 2, sampler.state);
}

fs_status invalid(const std::string& message) { return fail(FS_INVALID_ARGUMENT, message); }

std::string check_masks(const fs_masks* masks) {
  if (!masks) return {};
  std::string error = check_size("masks", *masks);
  if (error.empty() && masks->allowed_count < 0)
    error = must("masks.allowed_count", ">= 0", masks->allowed_count);
  return error;
}

fs_status step(const Steps& steps, int32_t threads, uint32_t flags, int64_t* tokens) {
  const fs_logits& logits = *steps.logits;
  for (int64_t i = 0; i < logits.rows; ++i) {
    fs_sampler& sampler = *steps.samplers[i];
    if (sampler.largest_id >= logits.vocab)
      return invalid(in_row(must("ids of a bias and allowed ids", "in [0, logits.vocab)",
                                 int64_t(sampler.largest_id)),
                            i));
    if (sampler.offset == UINT64_MAX)
      return invalid(in_row("offset must be less than 2**64 - 1, which has no next one", i));
    sampler.reserve(logits.vocab);  // nothing can fail once the tokens are known
  }
  Outcome* drawn = workspaces().own.drawn.reserve(size_t(logits.rows));
  const fs_status status =
      Batch<const Steps>(steps, flags & FS_MARK_BAD_ROWS, drawn).run(threads_of(threads, logits));
  if (status != FS_OK) return status;
  for (int64_t i = 0; i < logits.rows; ++i) {
    move(*steps.samplers[i], drawn[i]);
    tokens[i] = drawn[i].token;
  }
  return FS_OK;
}

}  // namespace

}  // namespace fastsample

using namespace fastsample;

fs_status fs_step_details(fs_sampler* const* samplers, const fs_logits* logits,
                          const fs_masks* masks, int32_t threads, uint32_t flags, int64_t* tokens,
                          const fs_details* details) {
  return guarded([&] {
    std::string error = check_logits(logits);
    if (error.empty()) error = check_call(threads, flags);
    if (error.empty()) error = check_masks(masks);
    if (error.empty() && details) error = check_details(details, logits->vocab);
    if (!error.empty()) return invalid(error);
    if (logits->rows == 0) return FS_OK;
    if (!samplers || !tokens) return invalid("samplers and tokens must not be null");
    const HoldAll held(samplers, logits->rows);
    if (held.count() < logits->rows)
      return invalid(samplers[held.count()]
                         ? "samplers must be different ones, each in one call at a time"
                         : "samplers must not be null");
    const Kernels* kernels = active_kernels();
    if (!kernels) return invalid(isa_error());
    return step(Steps{logits, samplers, masks, details, kernels}, threads, flags, tokens);
  });
}

fs_status fs_step(fs_sampler* const* samplers, const fs_logits* logits, int32_t threads,
                  uint32_t flags, int64_t* tokens) {
  return fs_step_details(samplers, logits, nullptr, threads, flags, tokens, nullptr);
}
