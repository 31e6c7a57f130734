#include "lists/survivors.h"

#include <algorithm>

#include "lists/keys.h"
#include "lists/search.h"

namespace fastsample {

void Survivors::reserve(size_t n) {
  ids = ids_.reserve(n + kSlack, size);
  x = x_.reserve(n + kSlack, size);
}

void Survivors::assign(size_t id, float value) {
  reserve(1);
  lower_bound = value;
  ids[0] = int32_t(id);
  x[0] = value;
  size = 1;
}

void Survivors::assign(const Survivors& other) {
  assign({other.ids, other.x, other.size}, other.lower_bound);
}

void Survivors::assign(const Listed& other, float bound) {
  clear();
  reserve(other.size);
  lower_bound = bound;
  std::copy(other.ids, other.ids + other.size, ids);
  std::copy(other.x, other.x + other.size, x);
  size = other.size;
}

// A list first: whether a block has some is a surprise each time to a loop that asks it.
size_t Survivors::list_blocks(const Row& row, float low) {
  row.settle(low);
  int32_t* blocks = blocks_.reserve(row.blocks + kSlack);
  if (row.blocks == 1) {
    blocks[0] = 0;
    return row.block_max[0] >= low ? 1 : 0;
  }
  return row.kernels->places_within(row.block_max, row.blocks, low, INFINITY, blocks);
}

// Of the listed blocks first to last - 1.
void Survivors::append(const Row& row, size_t first, size_t last, float low, float high) {
  reserve(size + (last - first) * kBlock);
  lower_bound = size ? std::min(lower_bound, low) : low;
  size += row.collect(blocks_.get() + first, last - first, low, high, ids + size, x + size);
}

float Survivors::bound_by_lanes(const Row& row, size_t k) {
  const float* maxima = row.lane_max;
  size_t count = row.blocks * kLanes;
  // More maxima than that are not worth their search.
  for (; count % 2 == 0 && count / 2 >= 4 * k; count /= 2) {
    float* larger = maxima_.reserve(row.blocks * kLanes / 2);
    for (size_t i = 0; i < count / 2; ++i) larger[i] = std::max(maxima[i], maxima[i + count / 2]);
    maxima = larger;
  }
  const bool above = row.kernels->count_at_least(maxima, count, row.lowest_max) >= k;
  return kth_largest(row, maxima, count, above ? row.lowest_max : -FLT_MAX, k, k / 8);
}

void Survivors::collect_best(const Row& row, float best, float low) {
  const size_t blocks = list_blocks(row, best);
  append(row, 0, blocks, low, INFINITY);
}

bool Survivors::collect(const Row& row, float low, float high, size_t ties, size_t limit) {
  const float above_low = next_above(low);
  constexpr size_t kBlocks = 16;  // at a time
  size_t counted = 0, tied = 0;
  const auto over = [&] { return size - (tied >= ties ? tied : 0) > limit; };
  size_t blocks = list_blocks(row, low);
  if (limit <= kShortList) reserve(size + limit + kBlocks * kBlock);  // at once: growing holds more
  for (size_t i = 0; i < blocks;) {
    const size_t end = std::min(i + kBlocks, blocks);
    append(row, i, end, low, high);
    i = end;
    if (size - counted < 4 * size_t(kBlock)) continue;
    // Many at once. Are they equal, and enough of them?
    tied += row.kernels->count_at_least(x + counted, size - counted, low) -
            row.kernels->count_at_least(x + counted, size - counted, above_low);
    counted = size;
    if (over()) return false;
    if (tied >= ties && low < above_low) {  // blocks that have no more than ties are done
      low = above_low;
      const int32_t done = blocks_.get()[end - 1];
      blocks = list_blocks(row, low);
      i = size_t(std::upper_bound(blocks_.get(), blocks_.get() + blocks, done) - blocks_.get());
    }
  }
  return !over();
}

void Survivors::collect_marked(const Row& row, const Marks* marks, size_t marked, float low) {
  reserve(size + marked);
  lower_bound = size ? std::min(lower_bound, low) : low;
  constexpr size_t kBlocks = 16;  // at a time, read and read again
  for (size_t b = 0; b < row.blocks; b += kBlocks)
    size += row.collect_marked(marks, b, std::min(b + kBlocks, row.blocks), ids + size, x + size);
}

void Survivors::add_by_block(size_t count, int64_t sign, size_t blocks, int64_t* so_far,
                             int64_t* mass) const {
  // The sum up to the end of each block that has any: sums of their own would wait for memory with
  // every token.
  std::fill(so_far, so_far + blocks, int64_t(-1));
  int64_t total = 0;
  for (size_t i = 0; i < count; ++i) {
    total += weight[i];
    so_far[size_t(ids[i]) / kBlock] = total;
  }
  int64_t before = 0;
  for (size_t b = 0; b < blocks; ++b) {
    if (so_far[b] < 0) continue;
    mass[b] += sign * (so_far[b] - before);
    before = so_far[b];
  }
}

void Survivors::pad() {
  std::fill(ids + size, ids + size + kSlack, 0);
  std::fill(x + size, x + size + kSlack, -INFINITY);
}

void Survivors::cut_above(Ceiling ceiling) {
  keep_if([&](size_t i) { return !ceiling.drops(x[i], size_t(ids[i])); });
}

void Survivors::keep_marked(const uint8_t* stays) {
  keep_if([&](size_t i) { return stays[i] != 0; });
}

void Survivors::weigh(const Row& row, Exp2 exp2) {
  if (scale_ == exp2.scale) return;
  scale_ = exp2.scale;
  reserve(size);
  weight = weight_.reserve(size + kSlack);
  pad();
  row.kernels->weigh(x, ids, size, row.block_max, exp2, weight);
}

void Survivors::keep(const Row& row, float tau, size_t ties) {
  const bool weighed = scale_ != 0.0f;
  size = row.kernels->keep(ids, x, weighed ? weight : nullptr, size, tau, ties);
}

void Survivors::keep(const Row& row, const Kept& kept) {
  if (kept.whole_row()) return;
  size_t ties = 0;
  for (size_t i = 0; i < size; ++i) ties += x[i] == kept.tau && size_t(ids[i]) <= kept.last;
  keep(row, kept.tau, ties);
}

}  // namespace fastsample
