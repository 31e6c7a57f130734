#include "details.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "elementary.h"
#include "lists/keys.h"
#include "lists/largest.h"
#include "lists/search.h"
#include "softmax.h"
#include "stages/stage.h"

namespace fastsample {

namespace {

constexpr float kNoLogprob = std::numeric_limits<float>::quiet_NaN();

float value_at(const Row& row, int64_t token) {
  alignas(64) float scratch[kBlock];
  return row.values(size_t(token) / kBlock, scratch)[token % kBlock];
}

// How many values of a row are at least so large.
int64_t count_from(const Row& row, float low) {
  int64_t count = 0;
  for (size_t b = 0; b < row.blocks; ++b)
    if (row.block_max[b] >= low) count += int64_t(count_in_block(row, b, low, INFINITY));
  return count;
}

// How many of those equal to the smallest that is kept are not kept.
int64_t count_dropped_ties(const Row& row, const Kept& kept) {
  int64_t count = 0;
  alignas(64) float scratch[kBlock];
  for (size_t b = kept.last / kBlock; b < row.blocks; ++b) {
    if (row.block_max[b] < kept.tau) continue;
    const float* x = row.values(b, scratch);
    for (size_t i = 0; i < size_t(kBlock); ++i)
      count += x[i] == kept.tau && b * kBlock + i > kept.last;
  }
  return count;
}

// How many of what is kept, in the list if there is one, are at least so large, and at least x,
// which is kept.
int64_t count_kept(const Row& row, const Kept& kept, const Survivors& list, float low, float x) {
  if (kept.listed) return int64_t(row.kernels->count_at_least(list.x, list.size, low));
  const int64_t dropped = low == x && x == kept.tau ? count_dropped_ties(row, kept) : 0;
  return count_from(row, low) - dropped;
}

// The logarithms of what tokens are drawn with, or of their softmax.
class Logprobs {
 public:
  Logprobs(const Row& row, double temperature, double log_sum)
      : row_(row), temperature_(temperature), log_sum_(log_sum) {}
  // Of a list with other weights than those of the logits.
  Logprobs(const Row& row, const Survivors& list)
      : row_(row), list_(&list), total_(double(list.mass(row))) {}

  float of(float x, int32_t id) const {
    if (list_) return of_weight(*list_, id);
    return temperature_ == 0.0 ? 0.0f : log_probability(x, row_.max, temperature_, log_sum_);
  }

 private:
  float of_weight(const Survivors& list, int32_t id) const {
    const auto i = size_t(std::lower_bound(list.ids, list.ids + list.size, id) - list.ids);
    if (i == list.size || list.weight[i] == 0) return -INFINITY;
    return float(natural_log(double(list.weight[i]) / total_));
  }

  const Row& row_;
  const Survivors* list_ = nullptr;
  double temperature_ = 1.0, log_sum_ = 0.0, total_ = 1.0;
};

// Lists the n largest of a row, or of what is kept of it.
void list_largest(const Row& row, const Kept& kept, size_t n, Workspace& workspace) {
  Survivors& list = workspace.largest;
  if (kept.listed) {
    list.assign(workspace.survivors);
    keep_top_k(row, list, n);
  } else {
    list_top_k(row, {row.max, exp2_scale(1.0)}, n, list);
    list.keep(row, kept);
  }
}

void write_largest(const Row& row, const Kept& kept, const Logprobs& logprobs, Workspace& workspace,
                   const Details& details) {
  std::fill_n(details.top_ids, details.top, -1);
  std::fill_n(details.top_logprobs, details.top, -INFINITY);
  if (details.top == 0) return;
  list_largest(row, kept, details.top, workspace);
  const Survivors& list = workspace.largest;
  uint32_t* places = workspace.places.reserve(list.size);
  std::iota(places, places + list.size, 0u);
  std::sort(places, places + list.size, [&](uint32_t i, uint32_t j) {
    return list.x[i] != list.x[j] ? list.x[i] > list.x[j] : list.ids[i] < list.ids[j];
  });
  for (size_t i = 0; i < std::min(list.size, details.top); ++i) {
    details.top_ids[i] = list.ids[places[i]];
    details.top_logprobs[i] = logprobs.of(list.x[places[i]], list.ids[places[i]]);
  }
}

// Of the row, or of what is kept of it.
void write_logprobs(const Row& row, const Kept& kept, const Logprobs& logprobs, int64_t token,
                    Workspace& workspace, const Details& details) {
  const float x = value_at(row, token);
  if (details.logprob) *details.logprob = logprobs.of(x, int32_t(token));
  const Survivors& list = workspace.survivors;
  if (details.rank) *details.rank = 1 + count_kept(row, kept, list, next_above(x), x);
  if (details.at_least) *details.at_least = count_kept(row, kept, list, x, x);
  if (details.top_ids) write_largest(row, kept, logprobs, workspace, details);
}

void write_support(const Row& row, Kept kept, Workspace& workspace, const Details& details) {
  Survivors& list = kept.listed ? workspace.survivors : workspace.largest;
  if (!kept.listed) make_list(row, kept, list);
  std::copy_n(list.ids, list.size, details.support);
  *details.support_count = int64_t(list.size);
}

Logprobs processed(const Row& row, const Cut& cut, Workspace& workspace) {
  if (cut.reweighted > 0.0) return {row, workspace.survivors};
  if (cut.temperature == 0.0) return {row, 0.0, 0.0};
  return {row, cut.temperature, log_sum(row, cut.kept, cut.temperature, workspace)};
}

}  // namespace

void write_details(const Row& row, const Cut& cut, int64_t token, const Row& raw,
                   Workspace& workspace, const Details& details) {
  if (details.wants_logprobs() && details.raw)
    write_logprobs(raw, {}, {raw, 1.0, log_sum(raw, 1.0)}, token, workspace, details);
  else if (details.wants_logprobs())
    write_logprobs(row, cut.kept, processed(row, cut, workspace), token, workspace, details);
  if (details.support) write_support(row, cut.kept, workspace, details);
}

double log_mass(const Row& row, const Cut& cut, const Row& whole, Workspace& workspace) {
  if (cut.temperature == 0.0) return 0.0;
  if (!cut.kept.listed && cut.kept.whole_row() && !row.lowered) return 0.0;
  Cut drawn_from = cut;
  if (!cut.kept.listed) drawn_from.kept.scale = cut.exp2.scale;  // the draw has left the masses
  double kept = cut.reweighted;
  if (kept == 0.0) kept = double(weigh_kept(row, drawn_from, workspace));
  int64_t* mass = workspace.all_mass.reserve(whole.blocks);
  const Exp2 exp2{whole.max, cut.exp2.scale};
  whole.mass(exp2, INFINITY, mass, nullptr);
  const auto all = double(std::accumulate(mass, mass + whole.blocks, int64_t(0)));
  const double lower = (double(row.max) - double(whole.max)) * double(cut.exp2.scale) * kLn2;
  return std::min(0.0, natural_log(kept / all) + lower);
}

void write_no_details(const Details& details) {
  if (details.logprob) *details.logprob = kNoLogprob;
  if (details.rank) *details.rank = 0;
  if (details.at_least) *details.at_least = 0;
  if (details.top_ids) std::fill_n(details.top_ids, details.top, -1);
  if (details.top_ids) std::fill_n(details.top_logprobs, details.top, kNoLogprob);
  if (details.support) *details.support_count = 0;
  if (details.log_mass) *details.log_mass = std::numeric_limits<double>::quiet_NaN();
}

}  // namespace fastsample
