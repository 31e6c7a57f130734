// The C ABI of a step: the next token of many sequences at once.
#include "abi/batch.h"
#include "abi/sampler.h"
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

struct Steps {
  const fs_logits* logits;
  fs_sampler* const* samplers;
  const Kernels* kernels;

  Row row(int64_t i, Workspace& ws) const {
    fs_sampler& sampler = *samplers[i];
    Edits edits;
    edits.table = sampler.history.edits();
    Allowed allowed;
    if (sampler.masked) allowed = {sampler.allowed.data(), 32 * sampler.allowed.size()};
    return scan(kernels, RowType(logits->dtype), values_of(*logits, i, ws), size_t(logits->vocab),
                ws.block_max, &ws.patch, edits, allowed);
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
  bool tell(int64_t, Workspace&, Row&, const Cut&, int64_t) const { return true; }
  void tell_nothing(int64_t) const {}
};

// Makes sure that nothing can fail once the tokens are known.
void reserve(fs_sampler& sampler, int64_t vocab) {
  sampler.history.reserve(size_t(vocab));
  std::vector<fs_sampler::Drawn>& drawn = sampler.drawn;
  if (drawn.size() == drawn.capacity()) drawn.reserve(2 * drawn.size() + 4);
}

void move(fs_sampler& sampler, const Outcome& outcome) {
  if (outcome.token < 0) return;
  const auto id = int32_t(outcome.token);
  const size_t place = sampler.history.ids().size();
  std::vector<fs_sampler::Drawn>& drawn = sampler.drawn;
  if (!drawn.empty() && drawn.back().place + drawn.back().count == place &&
      drawn.back().offset + drawn.back().count == sampler.offset)
    ++drawn.back().count;
  else
    drawn.push_back({place, 1, sampler.offset});
  sampler.history.push(&id, 1);
  ++sampler.offset;
  if (sampler.stateful) std::copy_n(outcome.state, 2, sampler.state);
}

fs_status invalid(const std::string& message) { return fail(FS_INVALID_ARGUMENT, message); }

fs_status step(fs_sampler* const* samplers, const fs_logits& logits, int32_t threads,
               uint32_t flags, int64_t* tokens) {
  for (int64_t i = 0; i < logits.rows; ++i) {
    if (samplers[i]->largest_id >= logits.vocab)
      return invalid(must("ids of a bias and allowed ids", "in [0, logits.vocab)",
                          int64_t(samplers[i]->largest_id)) +
                     " (row " + std::to_string(i) + ")");
    reserve(*samplers[i], logits.vocab);
  }
  const Kernels* kernels = active_kernels();
  if (!kernels) return invalid(isa_error());
  Outcome* drawn = workspaces().own.drawn.reserve(size_t(logits.rows));
  const Steps steps{&logits, samplers, kernels};
  const fs_status status =
      Batch<const Steps>(steps, flags & FS_MARK_BAD_ROWS, drawn).run(thread_count(threads, logits));
  if (status != FS_OK) return status;
  for (int64_t i = 0; i < logits.rows; ++i) {
    move(*samplers[i], drawn[i]);
    tokens[i] = drawn[i].token;
  }
  return FS_OK;
}

}  // namespace

}  // namespace fastsample

using namespace fastsample;

fs_status fs_step(fs_sampler* const* samplers, const fs_logits* logits, int32_t threads,
                  uint32_t flags, int64_t* tokens) {
  return guarded([&] {
    std::string error = check_logits(logits);
    if (error.empty()) error = check_call(threads, flags);
    if (!error.empty()) return invalid(error);
    if (logits->rows == 0) return FS_OK;
    if (!samplers || !tokens) return invalid("samplers and tokens must not be null");
    const HoldAll held(samplers, logits->rows);
    if (held.count() < logits->rows)
      return invalid(samplers[held.count()]
                         ? "samplers must be different ones, each in one call at a time"
                         : "samplers must not be null");
    return step(samplers, *logits, threads, flags, tokens);
  });
}
