#include "verification.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace fastsample {

namespace {

constexpr double kOne = 0x1p60;  // of a probability, in units

// Of a list, in its workspace.
double* shares_of(Workspace& workspace, size_t n) { return workspace.shares.reserve(n); }

}  // namespace

void Distribution::take_row(const Row& row, const Cut& cut, Workspace& workspace) {
  kind_ = kRow;
  workspace_ = &workspace;
  row_ = row;
  cut_ = cut;
  total_ = weigh_kept(row, cut, workspace);
  if (!cut.kept.listed) cut_.kept.scale = cut.exp2.scale;  // the masses of blocks are known
}

void Distribution::take_list(const int32_t* ids, const double* weights, size_t n,
                             Workspace& workspace) {
  kind_ = kList;
  workspace_ = &workspace;
  size_ = n;
  uint32_t* places = workspace.places.reserve(n);
  std::iota(places, places + n, 0u);
  std::sort(places, places + n, [ids](uint32_t i, uint32_t j) { return ids[i] < ids[j]; });
  const double total = std::accumulate(weights, weights + n, 0.0);
  int32_t* sorted = workspace.share_ids.reserve(n);
  double* q = shares_of(workspace, n);
  for (size_t i = 0; i < n; ++i) {
    sorted[i] = ids[places[i]];
    q[i] = weights[places[i]] / total;
  }
}

void Distribution::take_token(int32_t id) {
  kind_ = kToken;
  id_ = id;
}

double Distribution::of_row(int32_t id) {
  if (!cut_.kept.listed) {
    int64_t weight[kBlock];
    weigh_block(row_, cut_.kept, cut_.exp2, size_t(id) / kBlock, weight);
    return double(weight[id % kBlock]) / double(total_);
  }
  const Survivors& list = workspace_->survivors;
  const int32_t* end = list.ids + list.size;
  const int32_t* at = std::lower_bound(static_cast<const int32_t*>(list.ids), end, id);
  return at != end && *at == id ? double(list.weight[at - list.ids]) / double(total_) : 0.0;
}

double Distribution::of(int32_t id) {
  if (kind_ == kToken) return id == id_ ? 1.0 : 0.0;
  if (kind_ == kRow) return of_row(id);
  const int32_t* ids = workspace_->share_ids.get();
  const int32_t* at = std::lower_bound(ids, ids + size_, id);
  return at != ids + size_ && *at == id ? workspace_->shares.get()[at - ids] : 0.0;
}

Distribution::Listed Distribution::list() {
  if (kind_ == kToken) return {&id_, &one_, 1};
  if (kind_ == kList) return {workspace_->share_ids.get(), workspace_->shares.get(), size_};
  Survivors& list = workspace_->survivors;
  if (!cut_.kept.listed) {
    make_list(row_, cut_.kept, list);
    list.weigh(row_, cut_.exp2);
  }
  double* q = shares_of(*workspace_, list.size);
  // The two are equal, unless the row has changed meanwhile: then the shares come to no more
  // than 1.
  const int64_t mass = std::accumulate(list.weight, list.weight + list.size, int64_t(0));
  if (mass <= 0) return {list.ids, q, 0};
  const auto total = double(std::max(mass, total_));
  for (size_t i = 0; i < list.size; ++i) q[i] = double(list.weight[i]) / total;
  return {list.ids, q, list.size};
}

int64_t take_residual(Distribution& p, Distribution& q, double reached, Workspace& workspace) {
  const Distribution::Listed whole = p.list(), taken = q.list();
  int32_t* ids = workspace.left_ids.reserve(whole.size);
  int64_t* left = workspace.left.reserve(whole.size);
  workspace.left_size = whole.size;
  std::copy_n(whole.ids, whole.size, ids);
  int64_t mass = 0;
  for (size_t i = 0, k = 0; i < whole.size; ++i) {
    while (k < taken.size && taken.ids[k] < ids[i]) ++k;
    const bool both = k < taken.size && taken.ids[k] == ids[i];
    const auto had = int64_t(std::rint(reached * whole.q[i] * kOne));
    left[i] = std::max(int64_t(0), had - int64_t(std::rint(both ? taken.q[k] * kOne : 0.0)));
    mass += left[i];
  }
  if (mass == 0)
    for (size_t i = 0; i < whole.size; ++i) left[i] = int64_t(std::rint(whole.q[i] * kOne));
  return mass;
}

int32_t draw_residual(double u, const Workspace& workspace) {
  const size_t n = workspace.left_size, place = n ? place_of(workspace.left.get(), n, u) : 0;
  return place < n ? workspace.left_ids.get()[place] : -1;
}

}  // namespace fastsample
