#include "draw.h"

#include <algorithm>
#include <numeric>

#include "lists/keys.h"

namespace fastsample {

namespace {

// u * total rounded down, and below total even where the product rounds up to it. total < 2^62.
int64_t position(double u, int64_t total) {
  return std::min(int64_t(u * double(total)), total - 1);
}

// Index of the first weight whose cumulative sum exceeds `at`, which becomes what is left inside.
size_t locate(const int64_t* weight, size_t n, int64_t& at) {
  size_t i = 0;
  for (; i + 1 < n && at >= weight[i]; ++i) at -= weight[i];
  return i;
}

}  // namespace

Drawn draw(const Row& row, const Cut& cut, double u, Workspace& workspace) {
  if (cut.kept.listed) {
    Survivors& list = workspace.survivors;
    if (list.size <= 1) return {list.size ? list.ids[0] : -1, 1.0};
    list.weigh(row, cut.exp2);
    const int64_t total = list.mass(row);
    int64_t at = position(u, total);
    const size_t i = locate(list.weight, list.size, at);
    const double q = cut.reweighted > 0.0 ? double(workspace.before.get()[i]) / cut.reweighted
                                          : double(list.weight[i]) / double(total);
    return {list.ids[i], q};
  }
  const int64_t* mass = kept_mass(row, cut.kept, cut.exp2, workspace);
  const int64_t total = std::accumulate(mass, mass + row.blocks, int64_t(0));
  int64_t at = position(u, total);
  const size_t b = locate(mass, row.blocks, at);
  int64_t weight[kBlock];
  weigh_block(row, cut.kept, cut.exp2, b, weight);
  const size_t i = locate(weight, kBlock, at), token = b * kBlock + i;
  return {token < row.n ? int64_t(token) : -1, double(weight[i]) / double(total)};
}

size_t place_of(const int64_t* weight, size_t n, double u) {
  int64_t at = position(u, std::accumulate(weight, weight + n, int64_t(0)));
  return locate(weight, n, at);
}

void update_state(const Cut& cut, double q, double* state) {
  if (cut.stateful && state) cut.stateful->update(cut.numbers, q, state);
}

int64_t weigh_kept(const Row& row, const Cut& cut, Workspace& workspace) {
  if (cut.kept.listed) {
    workspace.survivors.weigh(row, cut.exp2);
    return workspace.survivors.mass(row);
  }
  const int64_t* mass = kept_mass(row, cut.kept, cut.exp2, workspace);
  return std::accumulate(mass, mass + row.blocks, int64_t(0));
}

void write_probs(const Row& row, const Cut& cut, Workspace& workspace, float* probs) {
  const double total = double(weigh_kept(row, cut, workspace));
  if (cut.kept.listed) {
    const Survivors& list = workspace.survivors;
    std::fill(probs, probs + row.n, 0.0f);
    for (size_t i = 0; i < list.size; ++i)
      probs[list.ids[i]] = float(double(list.weight[i]) / total);
    return;
  }
  // Of values equal to the threshold those up to a place in one block count.
  const Kept& kept = cut.kept;
  const size_t b = std::min(kept.last / kBlock, row.blocks);
  row.quotients(0, b, cut.exp2, kept.tau, total, probs);
  if (b == row.blocks) return;
  int64_t weight[kBlock];
  weigh_block(row, kept, cut.exp2, b, weight);
  const size_t count = std::min(row.left(b), size_t(kBlock));
  for (size_t i = 0; i < count; ++i) probs[b * kBlock + i] = float(double(weight[i]) / total);
  row.quotients(b + 1, row.blocks, cut.exp2, next_above(kept.tau), total, probs);
}

size_t write_survivors(const Row& row, Cut cut, Workspace& workspace, size_t capacity, int64_t* ids,
                       float* probs) {
  Survivors& list = workspace.survivors;
  if (!cut.kept.listed) make_list(row, cut.kept, list);
  if (list.size > capacity) return list.size;
  list.weigh(row, cut.exp2);
  const double total = double(list.mass(row));
  std::iota(ids, ids + list.size, int64_t(0));
  std::sort(ids, ids + list.size, [&](int64_t a, int64_t b) {
    return list.x[a] != list.x[b] ? list.x[a] > list.x[b] : a < b;
  });
  for (size_t i = 0; i < list.size; ++i) {
    probs[i] = float(double(list.weight[ids[i]]) / total);
    ids[i] = list.ids[ids[i]];
  }
  return list.size;
}

}  // namespace fastsample
