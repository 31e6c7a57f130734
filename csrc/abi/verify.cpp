// The C ABI of verification: which drafts of sequences stay, and what follows them.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <string>

#include "abi/batch.h"
#include "abi/fields.h"
#include "philox.h"
#include "simd/dispatch.h"
#include "stages/table.h"
#include "verification.h"

namespace fastsample {

namespace {

// Where a check has a draft or target, and where a call of several has its sequence.
std::string in_sequence(const std::string& error, int64_t r, int64_t count) {
  return error.empty() || count == 1 ? error : in_row(error, r);
}

// A stage with a state that a draw would move.
std::string check_stateless(const fs_chain& chain) {
  const char* stateful = nullptr;
  for (int64_t i = 0; i < chain.stage_count; ++i) {
    const fs_stage& stage = element_at(chain.stages, i);
    if (stage.kind == FS_STAGE_TEMPERATURE && stage.value[0] == 0.0) return {};
    const TableRow* row = row_of_kind(stage.kind);
    if (row->stage->update && !row->stage->is_off(stage.value)) stateful = row->name;
  }
  return stateful ? must(stateful, "off where drafts are verified", "one with a state") : "";
}

// What is wrong inside of a source.
std::string check_fields(const fs_source& source, int64_t rows) {
  std::string error = check_logits(source.logits);
  if (error.empty() && source.logits->rows != rows)
    error = must("logits.rows", std::to_string(rows), source.logits->rows);
  if (error.empty()) error = check_chains(source.chains, source.chain_count, rows);
  for (int64_t i = 0; error.empty() && i < source.chain_count; ++i)
    error = check_stateless(element_at(source.chains, i));
  if (error.empty()) error = check_draws(source.draws, rows, source.logits->vocab, false);
  for (int64_t i = 0; error.empty() && source.draws && i < rows; ++i)
    if (element_at(source.draws, i).past) error = in_row("draws.past must be null", i);
  return error;
}

std::string check_source(const char* name, const fs_source* source, int64_t rows) {
  if (!source) return std::string(name) + " must not be null";
  std::string error = check_size("source", *source);
  if (!error.empty()) return error.replace(0, std::strlen("source"), name);
  error = check_fields(*source, rows);
  return error.empty() ? error : std::string(name) + "." + error;
}

std::string check_lists(const fs_drafts& drafts, int64_t vocab) {
  if (!drafts.ids || !drafts.weights) return "drafts.ids and drafts.weights must not be null";
  if (drafts.offsets[0] != 0) return must("drafts.offsets[0]", "0", drafts.offsets[0]);
  for (int64_t i = 0; i < drafts.count; ++i) {
    const int64_t first = drafts.offsets[i], last = drafts.offsets[i + 1];
    if (last <= first || last - first > vocab)
      return must("drafts.offsets", "rising, by no more than there are tokens", last);
    double total = 0.0;
    int32_t* ids = workspaces().own.share_ids.reserve(size_t(last - first));
    int32_t* end = std::copy(drafts.ids + first, drafts.ids + last, ids);
    std::sort(ids, end);
    if (ids[0] < 0 || end[-1] >= vocab || std::adjacent_find(ids, end) != end)
      return "drafts.ids must differ and be in [0, vocab)";
    for (int64_t k = first; k < last; ++k) {
      if (!(drafts.weights[k] >= 0.0)) return must("drafts.weights", ">= 0", drafts.weights[k]);
      total += drafts.weights[k];
    }
    if (!(total > 0.0 && total <= DBL_MAX))
      return must("drafts.weights", "of a finite sum > 0", total);
  }
  return {};
}

std::string check_drafts(const fs_drafts* sequences, int64_t r) {
  std::string error = check_size("drafts", sequences, r);
  if (!error.empty()) return error;
  const fs_drafts& drafts = element_at(sequences, r);
  if (drafts.count < 0 || drafts.count > FS_MAX_DRAFTS)
    return must("drafts.count", "in [0, 4096]", drafts.count);
  if (drafts.count > 0 && !drafts.tokens) return "drafts.tokens must not be null";
  error = check_source("target", drafts.target, drafts.count + 1);
  if (!error.empty()) return error;
  const int64_t vocab = drafts.target->logits->vocab;
  for (int64_t i = 0; i < drafts.count; ++i)
    if (drafts.tokens[i] < 0 || drafts.tokens[i] >= vocab)
      return must("drafts.tokens", "in [0, vocab)", drafts.tokens[i]);
  if (drafts.draft && drafts.offsets) return "drafts must have draft or lists, not both";
  if (drafts.offsets) return check_lists(drafts, vocab);
  if (!drafts.draft) return {};
  error = check_source("draft", drafts.draft, drafts.count);
  if (error.empty() && drafts.draft->logits->vocab != vocab)
    error = must("draft.logits.vocab", "that of the target", drafts.draft->logits->vocab);
  return error;
}

// One sequence.
class Verifier {
 public:
  Verifier(const fs_drafts& drafts, const Kernels* kernels, Workspace& ws, Workspace& of_draft)
      : drafts_(drafts), kernels_(kernels), ws_(ws), of_draft_(of_draft) {}

  // Writes what is emitted, of which the last is not a draft, and how many drafts stay. False where
  // a row that was looked at is bad.
  bool run(int32_t method, int64_t* tokens, int64_t& accepted) {
    int64_t next = -1;
    const bool good = method == FS_VERIFY_TOKEN   ? by_token(accepted, next)
                      : method == FS_VERIFY_EXACT ? exactly(accepted, next)
                                                  : by_block(accepted, next);
    if (!good) return false;
    std::copy_n(drafts_.tokens, accepted, tokens);
    tokens[accepted] = next;
    return true;
  }
  std::string error;

 private:
  double u(int64_t i, Use use) const {
    return uniform(drafts_.seed, drafts_.stream, drafts_.offset + uint64_t(i), use);
  }

  // Reads and cuts a row.
  bool read(const fs_source& source, const char* name, int64_t i, Workspace& ws, Row& row,
            Cut& kept) {
    Edits edits;
    Allowed allowed;
    double u_xtc = 0.0;
    if (source.draws) {
      const fs_draw& draw = element_at(source.draws, i);
      edits = {draw.edits, size_t(draw.edit_count)};
      if (draw.allowed || draw.allowed_count) allowed = {draw.allowed, size_t(draw.allowed_count)};
      u_xtc = draw.u_xtc;
    }
    row = scan(kernels_, RowType(source.logits->dtype), values_of(*source.logits, i, ws),
               size_t(source.logits->vocab), ws.block_max, &ws.patch, edits, allowed);
    if (row.defect != Defect::kNone) {
      error = describe(row, *source.logits, i).replace(0, std::strlen("logits"), name);
      return false;
    }
    const fs_chain& chain = element_at(source.chains, source.chain_count == 1 ? 0 : i);
    kept = cut(row, chain, u_xtc, nullptr, ws);
    return true;
  }

  // Draws what `sample` would.
  bool draw_own(int64_t i, int64_t& token) {
    Row row;
    Cut kept;
    if (!read(*drafts_.target, "target", i, ws_, row, kept)) return false;
    token = draw(row, kept, u(i, kToken), ws_).token;
    return (token >= 0 && token < drafts_.target->logits->vocab) || changed(i);
  }
  // Draws from what is left of the target, which `ws` has.
  bool draw_rest(int64_t i, const Workspace& ws, int64_t& token) {
    token = draw_residual(u(i, kRefused), ws);
    return token >= 0 || changed(i);
  }
  bool changed(int64_t i) {
    error = "target row " + std::to_string(i) + " must not change while it is verified";
    return false;
  }

  bool read_p(int64_t i) {
    Row row;
    Cut kept;
    if (!read(*drafts_.target, "target", i, ws_, row, kept)) return false;
    p_.take_row(row, kept, ws_);
    return true;
  }
  bool read_q(int64_t i) {
    if (drafts_.offsets) {
      const int64_t first = drafts_.offsets[i], size = drafts_.offsets[i + 1] - first;
      q_.take_list(drafts_.ids + first, drafts_.weights + first, size_t(size), of_draft_);
      return true;
    }
    if (!drafts_.draft) {
      q_.take_token(int32_t(drafts_.tokens[i]));
      return true;
    }
    Row row;
    Cut kept;
    if (!read(*drafts_.draft, "draft", i, of_draft_, row, kept)) return false;
    q_.take_row(row, kept, of_draft_);
    return true;
  }

  bool by_token(int64_t& accepted, int64_t& next) {
    for (accepted = 0; accepted < drafts_.count; ++accepted) {
      const int64_t i = accepted;
      if (!read_p(i) || !read_q(i)) return false;
      const auto token = int32_t(drafts_.tokens[i]);
      if (u(i, kAccepted) * q_.of(token) < p_.of(token)) continue;
      take_residual(p_, q_, 1.0, ws_);
      return draw_rest(i, ws_, next);
    }
    return draw_own(drafts_.count, next);
  }

  bool exactly(int64_t& accepted, int64_t& next) {
    for (accepted = 0; accepted < drafts_.count; ++accepted) {
      if (!draw_own(accepted, next)) return false;
      if (next != drafts_.tokens[accepted]) return true;
    }
    return draw_own(drafts_.count, next);
  }

  bool by_block(int64_t& accepted, int64_t& next) {
    double reached = 1.0;
    accepted = 0;
    for (int64_t i = 0; i < drafts_.count && reached > 0.0; ++i) {
      if (!read_p(i) || !read_q(i)) return false;
      const double mass = double(take_residual(p_, q_, reached, ws_)) * 0x1p-60;
      const double rest = mass + 1.0 - reached;
      // Of the block before this position; the residual is kept with the last that is accepted.
      if (i == 0 || u(i - 1, kAccepted) < (rest > 0.0 ? mass / rest : 1.0)) {
        accepted = i;
        keep_residual();
      }
      const auto token = int32_t(drafts_.tokens[i]);
      const double of_p = p_.of(token), of_q = q_.of(token);
      const double ratio = of_q > 0.0 ? of_p / of_q : double(of_p > 0.0);
      reached = std::min(reached * ratio, 1.0);
    }
    if (drafts_.count == 0 || u(drafts_.count - 1, kAccepted) < reached) {
      accepted = drafts_.count;
      return draw_own(drafts_.count, next);
    }
    return draw_rest(accepted, of_draft_, next);
  }

  void keep_residual() {
    const size_t size = of_draft_.left_size = ws_.left_size;
    std::copy_n(ws_.left_ids.get(), size, of_draft_.left_ids.reserve(size));
    std::copy_n(ws_.left.get(), size, of_draft_.left.reserve(size));
  }

  const fs_drafts& drafts_;
  const Kernels* kernels_;
  Workspace& ws_;
  Workspace& of_draft_;
  Distribution p_, q_;
};

}  // namespace

}  // namespace fastsample

using namespace fastsample;

fs_status fs_verify(const fs_drafts* sequences, int64_t count, int32_t method, int64_t stride,
                    int64_t* tokens, int64_t* accepted) {
  return guarded([&] {
    if (count < 0) return fail(FS_INVALID_ARGUMENT, must("count", ">= 0", count));
    if (method < FS_VERIFY_TOKEN || method > FS_VERIFY_BLOCK)
      return fail(FS_INVALID_ARGUMENT, must("method", "an fs_method", int64_t(method)));
    if (count == 0) return FS_OK;
    if (!sequences || !tokens || !accepted)
      return fail(FS_INVALID_ARGUMENT, "sequences, tokens and accepted must not be null");
    int64_t longest = 0;
    for (int64_t r = 0; r < count; ++r) {
      const std::string error = in_sequence(check_drafts(sequences, r), r, count);
      if (!error.empty()) return fail(FS_INVALID_ARGUMENT, error);
      longest = std::max(longest, element_at(sequences, r).count);
    }
    if (stride <= longest)
      return fail(FS_INVALID_ARGUMENT,
                  must("stride", "> " + std::to_string(longest) + ", the most drafts", stride));
    const Kernels* kernels = active_kernels();
    if (!kernels) return fail(FS_INVALID_ARGUMENT, isa_error());
    Workspaces& kept = workspaces();
    kept.reserve(2);
    // Kept aside until all are done: a failing call writes nothing.
    const size_t width = size_t(longest) + 2;
    int64_t* all = kept.own.emitted.reserve(size_t(count) * width);
    std::fill_n(all, size_t(count) * width, int64_t(-1));
    for (int64_t r = 0; r < count; ++r) {
      int64_t* mine = all + size_t(r) * width;
      Verifier verifier(element_at(sequences, r), kernels, kept.own, kept.of(1));
      if (!verifier.run(method, mine + 1, mine[0]))
        return fail(FS_BAD_LOGITS, in_sequence(verifier.error, r, count));
    }
    for (int64_t r = 0; r < count; ++r) {
      const int64_t* mine = all + size_t(r) * width;
      accepted[r] = mine[0];
      std::copy_n(mine + 1, element_at(sequences, r).count + 1, tokens + r * stride);
    }
    return FS_OK;
  });
}
