#include "chain.h"

#include <algorithm>

#include "stages/table.h"

namespace fastsample {

namespace {

bool is_greedy(const fs_chain& chain) {
  for (int64_t i = 0; i < chain.stage_count; ++i) {
    const fs_stage& stage = element_at(chain.stages, i);
    if (stage.kind == FS_STAGE_TEMPERATURE && stage.value[0] == 0.0) return true;
  }
  return false;
}

// A token of the row even if it changes under the call, and the value is gone.
size_t first_of(const Row& row, float value) {
  size_t b = 0;
  while (b + 1 < row.blocks && row.block_max[b] != value) ++b;
  alignas(64) float scratch[kBlock];
  const float* x = row.values(b, scratch);
  return std::min(b * kBlock + size_t(std::find(x, x + kBlock, value) - x), row.n - 1);
}

// The first of what is kept.
Cut cut_greedy(const Row& row, Kept kept, Workspace& workspace) {
  Survivors& list = workspace.survivors;
  if (kept.listed) {
    const float max = *std::max_element(list.x, list.x + list.size);
    list.keep(row, max, 1);
  } else {
    list.clear();
    list.assign(first_of(row, row.max), row.max);
  }
  kept.listed = true;
  Cut greedy;
  greedy.kept = kept;
  greedy.exp2 = {row.max, exp2_scale(1.0)};
  greedy.temperature = 0.0;
  return greedy;
}

// The place of the last token that is kept.
Kept end_of(const Cutting& cutting) {
  Kept end = cutting.kept;
  if (!end.listed) return end;
  const Survivors& list = cutting.list();
  end.tau = *std::min_element(list.x, list.x + list.size);
  for (size_t i = 0; i < list.size; ++i)
    if (list.x[i] == end.tau) end.last = size_t(list.ids[i]);
  end.listed = false;
  return end;
}

void run_one(Cutting& cutting, const fs_stage& stage) {
  const Stage& what = stage_of(stage.kind);
  if (!what.is_off(stage.value)) what.run(cutting, stage.value);
}

// Floors that cut the same distribution: the highest of them counts. All of `first` to `end` - 1.
void run_joint(Cutting& cutting, const fs_chain& chain, int64_t first, int64_t end) {
  const Kept before = cutting.kept;
  Survivors& list = cutting.list();
  if (before.listed) cutting.workspace.base.assign(list);
  const auto restore = [&] {
    cutting.kept = before;
    cutting.kept.scale = 0.0f;
    if (before.listed)
      list.assign(cutting.workspace.base);
    else
      list.clear();
  };
  Kept highest = before;
  for (int64_t i = first; i < end; ++i) {
    const fs_stage& stage = element_at(chain.stages, i);
    if (stage_of(stage.kind).is_off(stage.value)) continue;
    restore();
    stage_of(stage.kind).run(cutting, stage.value);
    const Kept place = end_of(cutting);
    if (place.tau > highest.tau || (place.tau == highest.tau && place.last < highest.last))
      highest = place;
  }
  restore();
  if (before.listed) {
    list.keep(cutting.row, highest);
  } else {
    cutting.kept.tau = highest.tau;
    cutting.kept.last = highest.last;
    list_if_short(cutting);
  }
}

}  // namespace

Cut cut(Row& row, const fs_chain& chain, double u_xtc, const double* state, Workspace& workspace) {
  Kept kept;
  kept.listed = row.few.size > 0;
  workspace.survivors.assign(row.few, row.lowest_max);
  if (is_greedy(chain)) return cut_greedy(row, kept, workspace);
  const size_t at_least = std::min(size_t(chain.min_tokens_to_keep), row.n);
  Cutting cutting{row, workspace, at_least, u_xtc, state, kept};
  Cut result;
  for (int64_t i = 0; i < chain.stage_count;) {
    int64_t end = i + 1;
    while (end < chain.stage_count && element_at(chain.stages, end).joint) ++end;
    if (end > i + 1)
      run_joint(cutting, chain, i, end);
    else
      run_one(cutting, element_at(chain.stages, i));
    if (cutting.temperature == 0.0) return cut_greedy(row, cutting.kept, workspace);
    for (; i < end; ++i) {
      const fs_stage& stage = element_at(chain.stages, i);
      const Stage& what = stage_of(stage.kind);
      if (!what.update || what.is_off(stage.value)) continue;
      result.stateful = &what;
      result.numbers = stage.value;
    }
  }
  result.kept = cutting.kept;
  result.exp2 = cutting.exp2();
  result.reweighted = cutting.reweighted;
  result.temperature = cutting.temperature;
  return result;
}

}  // namespace fastsample
