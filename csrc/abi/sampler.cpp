// The C ABI of a sampler's life: new, copy, push, rollback, reset, free, and what can be read.
#include "abi/sampler.h"

#include "abi/call.h"
#include "abi/check.h"
#include "abi/fields.h"

namespace fastsample {

namespace {

// Holds a sampler for the time of a call.
class Hold {
 public:
  explicit Hold(const fs_sampler* sampler)
      : sampler_(sampler), mine_(!sampler->held.exchange(true, std::memory_order_acquire)) {}
  ~Hold() {
    if (mine_) sampler_->held.store(false, std::memory_order_release);
  }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;
  bool mine() const { return mine_; }

 private:
  const fs_sampler* sampler_;
  const bool mine_;
};

fs_status invalid(const std::string& message) { return fail(FS_INVALID_ARGUMENT, message); }

// Runs body() with a sampler that no other call has.
template <class Body>
fs_status with(const fs_sampler* sampler, Body body) {
  return guarded([&] {
    if (!sampler) return invalid("sampler must not be null");
    const Hold hold(sampler);
    return hold.mine() ? body() : invalid("sampler must not be used by two calls at once");
  });
}

std::string check_ids(const int32_t* ids, int64_t count) {
  if (count < 0) return must("count", ">= 0", count);
  if (count > 0 && !ids) return "ids must not be null";
  for (int64_t i = 0; i < count; ++i)
    if (ids[i] < 0) return must("history ids", ">= 0", int64_t(ids[i]));
  return {};
}

void set_bit(std::vector<uint32_t>& bits, int32_t id) {
  const size_t word = size_t(id) / 32;
  if (word >= bits.size()) bits.resize(word + 1);
  bits[word] |= uint32_t(1) << id % 32;
}

}  // namespace

}  // namespace fastsample

using namespace fastsample;

fs_sampler::fs_sampler(const fs_chain& from, const fs_rule* rules, int64_t rule_count)
    : chain(from), history(rules, rule_count), largest_id(history.largest_biased()) {
  for (int64_t i = 0; i < from.stage_count; ++i) {
    fs_stage stage = element_at(from.stages, i);
    stage.struct_size = sizeof stage;
    stages.push_back(stage);
  }
  chain.struct_size = sizeof chain;
  chain.stages = stages.data();
  for (const fs_stage& stage : stages) {
    const Stage& what = stage_of(stage.kind);
    if (what.is_off(stage.value)) continue;
    greedy |= stage.kind == FS_STAGE_TEMPERATURE && stage.value[0] == 0.0;
    if (what.start) stateful = &stage;
    has_coin |= stage.kind == FS_STAGE_XTC;
  }
  for (int64_t i = 0; i < rule_count; ++i) {
    const fs_rule& rule = element_at(rules, i);
    if (rule.kind != FS_RULE_ALLOWED_IDS) continue;
    masked = true;
    for (int64_t k = 0; k < rule.count; ++k) {
      // Of what no row can have, the largest id alone is of interest.
      if (rule.ids[k] < FS_MAX_VOCAB) set_bit(allowed, rule.ids[k]);
      largest_id = std::max(largest_id, rule.ids[k]);
    }
  }
}

fs_sampler::fs_sampler(const fs_sampler& from)
    : stages(from.stages),
      chain(from.chain),
      has_coin(from.has_coin),
      greedy(from.greedy),
      history(from.history),
      largest_id(from.largest_id),
      masked(from.masked),
      allowed(from.allowed),
      state{from.state[0], from.state[1]},
      seed(from.seed),
      stream(from.stream),
      offset(from.offset),
      drawn(from.drawn) {
  chain.stages = stages.data();
  if (from.stateful) stateful = stages.data() + (from.stateful - from.stages.data());
}

void fs_sampler::reset(uint64_t new_seed, uint64_t new_stream, uint64_t new_offset) {
  history.start(nullptr, 0, 0);
  drawn.clear();
  if (stateful) stage_of(stateful->kind).start(stateful->value, state);
  seed = new_seed;
  stream = new_stream;
  offset = new_offset;
}

void fs_sampler::reserve(int64_t vocab) {
  history.reserve(size_t(vocab));
  if (drawn.size() == drawn.capacity()) drawn.reserve(2 * drawn.size() + 4);
}

void fs_sampler::take(const int32_t* ids, size_t count) {
  const size_t place = history.ids().size();
  history.push(ids, count);
  if (!drawn.empty() && drawn.back().place + drawn.back().count == place &&
      drawn.back().offset + drawn.back().count == offset)
    drawn.back().count += count;
  else
    drawn.push_back({place, count, offset});
  offset += count;
}

void fs_sampler::take_back(size_t size) {
  while (!drawn.empty() && drawn.back().place + drawn.back().count > size) {
    Drawn& last = drawn.back();
    const size_t left = last.place < size ? size - last.place : 0;
    offset = last.offset + left;
    last.count = left;
    if (left) return;
    drawn.pop_back();
  }
}

fs_status fs_sampler_new(const fs_chain* chain, const fs_rule* rules, int64_t rule_count,
                         uint64_t seed, uint64_t stream, uint64_t offset, fs_sampler** sampler) {
  return guarded([&] {
    std::string error = check_chains(chain, 1, 1);
    if (error.empty()) error = check_rules(rules, rule_count);
    if (!error.empty()) return invalid(error);
    if (!sampler) return invalid("sampler must not be null");
    auto made = std::make_unique<fs_sampler>(*chain, rules, rule_count);
    made->reset(seed, stream, offset);
    *sampler = made.release();
    return FS_OK;
  });
}

fs_status fs_sampler_copy(const fs_sampler* from, fs_sampler** sampler) {
  return with(from, [&] {
    if (!sampler) return invalid("sampler must not be null");
    *sampler = new fs_sampler(*from);
    return FS_OK;
  });
}

void fs_sampler_free(fs_sampler* sampler) { delete sampler; }

fs_status fs_sampler_start(fs_sampler* sampler, const int32_t* ids, int64_t count,
                           int64_t prompt_length) {
  return with(sampler, [&] {
    const std::string error = check_ids(ids, count);
    if (!error.empty()) return invalid(error);
    if (prompt_length < 0 || prompt_length > count)
      return invalid(must("prompt_length", "from 0 to count", prompt_length));
    sampler->history.start(ids, size_t(count), size_t(prompt_length));
    sampler->drawn.clear();
    return FS_OK;
  });
}

fs_status fs_sampler_push(fs_sampler* sampler, const int32_t* ids, int64_t count) {
  return with(sampler, [&] {
    const std::string error = check_ids(ids, count);
    if (!error.empty()) return invalid(error);
    sampler->history.push(ids, size_t(count));
    return FS_OK;
  });
}

fs_status fs_sampler_accept(fs_sampler* sampler, const int32_t* ids, int64_t count) {
  return with(sampler, [&] {
    const std::string error = check_ids(ids, count);
    if (!error.empty()) return invalid(error);
    if (uint64_t(count) > UINT64_MAX - sampler->offset)
      return invalid(must("count", "at most the offsets that are left", count));
    if (count == 0) return FS_OK;
    sampler->reserve(1);
    sampler->take(ids, size_t(count));
    return FS_OK;
  });
}

fs_status fs_sampler_rollback(fs_sampler* sampler, int64_t count) {
  return with(sampler, [&] {
    const size_t size = sampler->history.ids().size();
    if (count < 0 || uint64_t(count) > size)
      return invalid(must("count", "from 0 to the length of the history", count));
    if (sampler->stateful && !sampler->greedy)
      return invalid(std::string("a sampler whose ") + fs_stage_name(sampler->stateful->kind) +
                     " has a state must not be rolled back");
    sampler->history.pop(size_t(count));
    sampler->take_back(size - size_t(count));
    return FS_OK;
  });
}

fs_status fs_sampler_reset(fs_sampler* sampler, uint64_t seed, uint64_t stream, uint64_t offset) {
  return with(sampler, [&] {
    sampler->reset(seed, stream, offset);
    return FS_OK;
  });
}

fs_status fs_sampler_seek(fs_sampler* sampler, uint64_t seed, uint64_t stream, uint64_t offset) {
  return with(sampler, [&] {
    sampler->seed = seed;
    sampler->stream = stream;
    sampler->offset = offset;
    return FS_OK;
  });
}

fs_status fs_sampler_get(const fs_sampler* sampler, fs_sampler_info* info, int32_t* ids,
                         int64_t capacity) {
  return with(sampler, [&] {
    if (capacity < 0) return invalid(must("capacity", ">= 0", capacity));
    if (capacity > 0 && !ids) return invalid("ids must not be null");
    if (info) {
      const std::string wrong = check_room("sampler_info", *info);
      if (!wrong.empty()) return invalid(wrong);
    }
    const std::vector<int32_t>& history = sampler->history.ids();
    std::copy_n(history.begin(), std::min(history.size(), size_t(capacity)), ids);
    if (!info) return FS_OK;
    fs_sampler_info value{};
    value.seed = sampler->seed;
    value.stream = sampler->stream;
    value.offset = sampler->offset;
    value.history_length = int64_t(history.size());
    value.prompt_length = int64_t(sampler->history.prompt());
    value.state_size = sampler->stateful ? stage_of(sampler->stateful->kind).state_size : 0;
    std::copy_n(sampler->state, 2, value.state);
    fill(info, info->struct_size, value);
    return FS_OK;
  });
}

fs_status fs_sampler_set_state(fs_sampler* sampler, const double* state) {
  return with(sampler, [&] {
    if (!state) return invalid("state must not be null");
    if (!sampler->stateful) return invalid("no stage of the sampler has a state");
    const std::string wrong = check_state(state, sampler->stateful);
    if (!wrong.empty()) return invalid(wrong);
    std::copy_n(state, 2, sampler->state);
    return FS_OK;
  });
}

fs_status fs_sampler_edits(fs_sampler* sampler, int64_t vocab, fs_edit* edits, int64_t capacity,
                           int64_t* count) {
  return with(sampler, [&] {
    if (vocab < 1 || vocab > FS_MAX_VOCAB)
      return invalid(must("vocab", "from 1 to 4194304", vocab));
    if (capacity < 0) return invalid(must("capacity", ">= 0", capacity));
    if (!count || (capacity > 0 && !edits)) return invalid("edits and count must not be null");
    const EditTable table = sampler->history.edits();
    int64_t found = 0;
    for (int pass = 0; pass < 2; ++pass) {  // counted, then written
      found = 0;
      for (size_t b = 0; b < table.blocks; ++b)
        for (size_t i = 0; i < table.block[b].count; ++i) {
          const Edit& edit = table.edit[table.block[b].begin + i];
          if (edit.id >= vocab) continue;
          if (pass) edits[found] = edit;
          ++found;
        }
      *count = found;
      if (found > capacity)
        return invalid(must("capacity", "at least " + std::to_string(found), capacity));
    }
    std::sort(edits, edits + found, [](const Edit& a, const Edit& b) { return a.id < b.id; });
    return FS_OK;
  });
}
