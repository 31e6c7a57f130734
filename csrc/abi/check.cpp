#include "abi/check.h"

#include <cfloat>

#include "abi/fields.h"
#include "stages/table.h"

namespace fastsample {

namespace {

std::string check_stage(const fs_chain& chain, int64_t i, uint32_t& seen) {
  std::string error = check_size("stage", chain.stages, i);
  if (!error.empty()) return error;
  const fs_stage& stage = element_at(chain.stages, i);
  const TableRow* row = row_of_kind(stage.kind);
  if (!row) return must("stage.kind", "an fs_stage_kind", int64_t(stage.kind));
  if (!row->stage) return std::string(row->name) + " is not in this version";
  if (seen >> stage.kind & 1)
    return std::string("chain must not name a stage twice, got ") + row->name;
  seen |= uint32_t(1) << stage.kind;
  if (stage.joint != 0 && stage.joint != 1)
    return must("stage.joint", "0 or 1", int64_t(stage.joint));
  if (stage.joint && i == 0) return must("stage.joint", "0 for the first stage", int64_t(1));
  if (stage.joint)
    for (const int32_t kind : {element_at(chain.stages, i - 1).kind, stage.kind})
      if (!stage_of(kind).is_floor)
        return std::string("stages must keep the largest logits to be joint, got ") +
               row_of_kind(kind)->name;
  if (stage.reserved != 0) return must("stage.reserved", "0", int64_t(stage.reserved));
  return check_numbers(row->name, row->stage->numbers, stage.value);
}

// A draw has one state, and what gives tokens other weights is the last to do so.
std::string check_states(const fs_chain& chain) {
  const TableRow* stateful = nullptr;
  for (int64_t i = 0; i < chain.stage_count; ++i) {
    const fs_stage& stage = element_at(chain.stages, i);
    const TableRow* row = row_of_kind(stage.kind);
    if (row->stage->is_off(stage.value)) continue;
    if (stateful && stateful->kind == FS_STAGE_ADAPTIVE)
      return std::string("adaptive must be the last stage that is on, got ") + row->name;
    if (!row->stage->update) continue;
    if (stateful)
      return std::string("chain must not have two stages with a state, got ") + stateful->name +
             " and " + row->name;
    stateful = row;
  }
  return {};
}

// Whether a chain is a usual one without a flaw, without a word of what is wrong.
bool is_fine(const fs_chain& chain, uint64_t size) {
  if (chain.struct_size != size || size != sizeof(fs_chain)) return false;
  if (chain.min_tokens_to_keep < 1 || chain.stage_count < 0 || !chain.stages) return false;
  uint32_t seen = 0;
  for (int64_t i = 0; i < chain.stage_count; ++i) {
    const fs_stage& stage = chain.stages[i];
    const TableRow* row = row_of_kind(stage.kind);
    if (stage.struct_size != sizeof(fs_stage) || !row || !row->stage) return false;
    if (stage.joint | stage.reserved || seen >> stage.kind & 1) return false;
    if (row->stage->update) return false;  // with a state: what stands beside it matters
    seen |= uint32_t(1) << stage.kind;
    for (int k = 0; k < 4; ++k) {
      const Number& number = row->stage->numbers[k];
      if (number.name ? !number.valid(stage.value[k]) : stage.value[k] != 0.0) return false;
    }
  }
  return true;
}

std::string check_chain(const fs_chain* chains, int64_t i) {
  std::string error = check_size("chain", chains, i);
  if (!error.empty()) return error;
  const fs_chain& chain = element_at(chains, i);
  if (chain.min_tokens_to_keep < 1)
    return must("min_tokens_to_keep", ">= 1", chain.min_tokens_to_keep);
  if (chain.stage_count < 0) return must("chain.stage_count", ">= 0", chain.stage_count);
  if (chain.stage_count > 0 && !chain.stages) return "chain.stages must not be null";
  uint32_t seen = 0;
  for (int64_t k = 0; k < chain.stage_count; ++k) {
    error = check_stage(chain, k, seen);
    if (!error.empty()) return error;
  }
  return check_states(chain);
}

}  // namespace

std::string in_row(const std::string& error, int64_t i) {
  return error + " (row " + std::to_string(i) + ")";
}

std::string check_call(int32_t threads, uint32_t flags) {
  if (threads < 0) return must("threads", ">= 0", int64_t(threads));
  if (flags & ~uint32_t(FS_MARK_BAD_ROWS))
    return must("flags", "0 or FS_MARK_BAD_ROWS", int64_t(flags));
  return {};
}

std::string check_logits(const fs_logits* logits) {
  if (!logits) return "logits must not be null";
  std::string error = check_size("logits", *logits);
  if (!error.empty()) return error;
  if (logits->dtype < FS_FLOAT32 || logits->dtype > FS_FLOAT64)
    return must("logits.dtype", "an fs_dtype", int64_t(logits->dtype));
  if (logits->reserved != 0) return must("logits.reserved", "0", int64_t(logits->reserved));
  if (logits->rows < 0) return must("logits.rows", ">= 0", logits->rows);
  if (logits->vocab < 1 || logits->vocab > FS_MAX_VOCAB)
    return must("logits.vocab", "from 1 to 4194304", logits->vocab);
  const int64_t size = element_size(logits->dtype);
  if (logits->element_stride % size)
    return must("logits.element_stride", "a multiple of the element's size",
                logits->element_stride);
  if (logits->rows == 0) return {};
  if (!logits->data) return "logits.data must not be null";
  if (reinterpret_cast<uintptr_t>(logits->data) % uintptr_t(size))
    return "logits.data must be aligned to its element";
  return {};
}

namespace {

// Edits and mask.
std::string check_inputs(const fs_draw& draw, int64_t vocab) {
  if (draw.allowed_count < 0) return must("allowed_count", ">= 0", draw.allowed_count);
  if (draw.edit_count < 0) return must("edit_count", ">= 0", draw.edit_count);
  if (draw.edit_count > 0 && !draw.edits) return "edits must not be null";
  for (int64_t i = 0; i < draw.edit_count; ++i) {
    const fs_edit& edit = draw.edits[i];
    if (edit.id < 0 || edit.id >= vocab)
      return must("edit.id", "in [0, logits.vocab)", int64_t(edit.id));
    if (edit.banned != 0 && edit.banned != 1)
      return must("edit.banned", "0 or 1", int64_t(edit.banned));
    if (!(edit.factor > 0.0 && is_finite(edit.factor)))
      return must("edit.factor", "finite and > 0", edit.factor);
    if (!is_finite(edit.subtract)) return must("edit.subtract", "finite", edit.subtract);
    if (!(edit.bias <= DBL_MAX)) return must("edit.bias", "finite or -inf", edit.bias);
  }
  return {};
}

}  // namespace

std::string check_chains(const fs_chain* chains, int64_t count, int64_t rows) {
  if (!chains && count != 0) return "chains must not be null";
  if (count != 1 && count != rows) return must("chain_count", "1 or logits.rows", count);
  for (int64_t i = 0; i < count; ++i) {
    if (is_fine(element_at(chains, i), chains->struct_size)) continue;
    const std::string error = check_chain(chains, i);
    if (!error.empty()) return count == 1 ? error : in_row(error, i);
  }
  return {};
}

std::string check_draws(const fs_draw* draws, int64_t rows, int64_t vocab, bool drawing) {
  if (rows == 0) return {};
  if (!draws) return drawing ? "draws must not be null" : "";
  for (int64_t i = 0; i < rows; ++i) {
    const fs_draw& draw = element_at(draws, i);
    if (draw.struct_size != sizeof(fs_draw) || draws->struct_size != sizeof(fs_draw)) {
      const std::string error = check_size("draw", draws, i);
      if (!error.empty()) return in_row(error, i);
    }
    if (drawing && !(draw.u >= 0.0 && draw.u < 1.0))
      return in_row(must("u", "in [0, 1)", draw.u), i);
    if (!(draw.u_xtc >= 0.0 && draw.u_xtc < 1.0))
      return in_row(must("u_xtc", "in [0, 1)", draw.u_xtc), i);
    const std::string wrong = check_inputs(draw, vocab);
    if (!wrong.empty()) return in_row(wrong, i);
  }
  return {};
}

std::string check_state(const double* state, const fs_stage* stateful) {
  const std::string got = "[" + show(state[0]) + ", " + show(state[1]) + "]";
  if (!(is_finite(state[0]) && is_finite(state[1]))) return must("state", "finite", got);
  if (stateful && stage_of(stateful->kind).positive && !(state[1] > 0.0))
    return "state must have a positive second number, got " + got;
  return {};
}

std::string check_states(const fs_draw* draws, int64_t rows, const fs_chain* chains,
                         int64_t count) {
  for (int64_t i = 0; draws && i < rows; ++i) {
    const fs_draw& draw = element_at(draws, i);
    if (!draw.state) continue;
    const fs_chain& chain = element_at(chains, count == 1 ? 0 : i);
    const fs_stage* stateful = nullptr;
    for (int64_t k = 0; k < chain.stage_count; ++k) {
      const fs_stage& stage = element_at(chain.stages, k);
      if (stage_of(stage.kind).start && !stage_of(stage.kind).is_off(stage.value))
        stateful = &stage;
    }
    const std::string wrong = check_state(draw.state, stateful);
    if (!wrong.empty()) return in_row(wrong, i);
  }
  return {};
}

std::string check_details(const fs_details* details, int64_t vocab) {
  if (!details) return "details must not be null";
  const std::string error = check_size("details", *details);
  if (!error.empty()) return error;
  if (details->reserved != 0) return must("details.reserved", "0", int64_t(details->reserved));
  const bool asked = details->logprob || details->rank || details->at_least || details->top_ids ||
                     details->top_logprobs;
  if (details->logprobs < (asked ? 1 : 0) || details->logprobs > FS_LOGPROBS_PROCESSED)
    return must("details.logprobs", "an fs_logprobs", int64_t(details->logprobs));
  if (details->top_count < 0 || details->top_count > vocab)
    return must("details.top_count", "in [0, logits.vocab]", details->top_count);
  if (!details->top_ids != !details->top_logprobs)
    return "details.top_ids and details.top_logprobs must both be null, or none";
  if (!details->support != !details->support_count)
    return "details.support and details.support_count must both be null, or none";
  return {};
}

}  // namespace fastsample
