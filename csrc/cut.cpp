#include "cut.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <numeric>

#include "histogram.h"
#include "keys.h"
#include "params.h"

namespace fastsample {

namespace {

// The largest tau in [low, high) with measure(tau) >= target: one of the n values that are
// measured. measure falls as tau rises; it is at_low >= target > 0 at low, and 0 at high.
//
// By turns: a little beyond where a straight line has it, on the side that was not narrowed last;
// the largest value that may be it; and halfway in the order of floats, which bounds the number of
// turns whatever the values.
template <class T, class Measure>
float highest_reaching(const Kernels* kernels, const float* x, size_t n, float low, float high,
                       T at_low, T target, Measure measure) {
  T at_high = 0;
  enum { kLine, kLineAgain, kLargest, kHalfway, kTurns };
  bool low_was_last = false;
  for (int round = 0;; ++round) {
    const int64_t a = to_key(low), b = to_key(high);
    if (b - a <= 1) return low;
    const int turn = round % kTurns;
    float mid = from_key(int32_t(a + (b - a) / 2));
    if (turn == kLine || turn == kLineAgain) {
      const double part = double(at_low - target) / double(at_low - at_high);
      const double beyond = low_was_last ? part + 0.0625 : part - 0.0625;
      const auto line =
          float(low + std::clamp(beyond, 0.015625, 0.984375) * (double(high) - double(low)));
      if (line > low && line < high) mid = line;
    } else if (turn == kLargest) {
      mid = kernels->largest_below(x, n, high);
      if (mid <= low) return low;
    }
    const T at_mid = measure(mid);
    low_was_last = at_mid >= target;
    if (!low_was_last) {
      high = mid;
      at_high = at_mid;
    } else {
      low = mid;
      at_low = at_mid;
      if (turn == kLargest) return low;
    }
  }
}

// Of a row's values that are at least `low`, which is returned where these are fewer than k.
float kth_largest(const Row& row, const float* x, size_t n, float low, size_t k) {
  const auto count = [&](float tau) { return row.kernels->count_at_least(x, n, tau); };
  const size_t in_all = count(low);
  if (in_all < k) return low;
  return highest_reaching(row.kernels, x, n, low, next_above(row.max), in_all, k, count);
}

int64_t sum(const int64_t* mass, size_t n) { return std::accumulate(mass, mass + n, int64_t(0)); }

// A list is worth making while it is short against the row.
size_t short_list(const Row& row) { return std::max<size_t>(4096, row.n / 16); }

// Below this many tokens a list of all is faster than any search of the row.
constexpr size_t kSmallRow = 512;

// ---- top-k ------------------------------------------------------------------------------------

void keep_top_k(const Row& row, Survivors& list, size_t k) {
  if (k >= list.size) return;
  const float tau = kth_largest(row, list.x, list.size, list.lower_bound, k);
  const size_t above = row.kernels->count_at_least(list.x, list.size, next_above(tau));
  list.keep(row, tau, k - above);
}

// Lists at least the k largest values, where blocks are no fewer: k of them hold at least one value
// each that reaches the k-th largest block maximum.
void list_by_maxima(const Row& row, size_t k, Survivors& list) {
  float bound = kth_largest(row, row.block_max, row.blocks, row.lowest_max, k);
  if (list.collect(row, bound, INFINITY, k, 4 * k + 1024)) return;
  // A sorted row has its largest values in few blocks, of which the last may be short: what these
  // hold is a better bound.
  const size_t few = std::min(row.blocks, k / 64 + 2);
  const float best = kth_largest(row, row.block_max, row.blocks, bound, few);
  list.clear();
  list.collect_best(row, best, bound);
  if (list.size >= k) bound = kth_largest(row, list.x, list.size, list.lower_bound, k);
  list.clear();
  list.collect(row, bound, INFINITY, k, kNoLimit);
}

// The same for any k: by a guess, a lower one, or else all.
void list_by_guess(const Row& row, Exp2 exp2, size_t k, Survivors& list) {
  const Histogram guess(row, exp2, Histogram::kCount);
  for (double count : {1.1 * double(k) + 250.0, 4.0 * double(k) + 1000.0, double(row.n)}) {
    float bound = count < double(row.n) ? guess.with_count(count) : -FLT_MAX;
    list.clear();
    if (!list.collect(row, bound, INFINITY, k, size_t(1.5 * count) + 2048)) {
      // Equal values crowd above the bound. What is here by now gives a better one.
      bound = kth_largest(row, list.x, list.size, list.lower_bound, k);
      list.clear();
      list.collect(row, bound, INFINITY, k, kNoLimit);
    }
    if (list.size >= k) return;
  }
}

// Lists the k largest values, or all finite ones where they are fewer.
void list_top_k(const Row& row, Exp2 exp2, size_t k, Survivors& list) {
  list.clear();
  if (k <= row.blocks)
    list_by_maxima(row, k, list);
  else
    list_by_guess(row, exp2, k, list);
  keep_top_k(row, list, k);
}

// ---- top-p ------------------------------------------------------------------------------------

int64_t share_of(double p, int64_t total) {
  const double share = std::ceil(p * double(total));
  return std::clamp(int64_t(share), int64_t(1), total);
}

// Where the mass of the shortest prefix of a list reaches `target`.
struct Prefix {
  float tau;
  size_t ties;  // how many values equal to tau it takes,
  size_t last;  // and the id of the last of them
};

// Values are in [low, high), and weigh no less than the target.
Prefix find_prefix(const Row& row, const Survivors& list, float low, float high, int64_t target) {
  const Kernels* kernels = row.kernels;
  const auto mass = [&](float tau) {
    return kernels->mass_at_least(list.x, list.weight, list.size, tau);
  };
  const float tau =
      highest_reaching(kernels, list.x, list.size, low, high, list.mass(row), target, mass);
  // Equal values in different blocks may differ in the last bits of their weights.
  int64_t reached = mass(next_above(tau));
  Prefix prefix{tau, 0, 0};
  for (size_t i = 0; reached < target; ++i) {
    i = kernels->find(list.x, i, list.size, tau);
    if (i == list.size) break;
    reached += list.weight[i];
    ++prefix.ties;
    prefix.last = size_t(list.ids[i]);
  }
  return prefix;
}

void keep_top_p(const Row& row, Survivors& list, double p, size_t at_least) {
  const int64_t target = share_of(p, list.mass(row));
  const Prefix prefix = find_prefix(row, list, list.lower_bound, next_above(row.max), target);
  const size_t above = row.kernels->count_at_least(list.x, list.size, next_above(prefix.tau));
  if (above + prefix.ties < at_least)
    keep_top_k(row, list, at_least);
  else
    list.keep(row, prefix.tau, prefix.ties);
}

// Takes equal values of a row, block after block, until they fill `missing`; `at_least` and `above`
// are the masses per block of values >= tau and > tau. Leaves the kept mass in `at_least`.
size_t last_of_ties(const Row& row, Exp2 exp2, float tau, int64_t missing, int64_t* at_least,
                    const int64_t* above) {
  size_t last = 0;
  for (size_t b = 0; b < row.blocks; ++b) {
    const int64_t tied = at_least[b] - above[b];
    if (missing <= 0) {
      at_least[b] = above[b];
    } else if (tied > 0 && tied < missing) {
      missing -= tied;
    } else if (tied > 0) {
      int64_t weight[kBlock];
      Kept only_ties;
      only_ties.tau = tau;
      weigh_block(row, only_ties, exp2, b, weight);
      alignas(64) float scratch[kBlock];
      const float* x = row.values(b, scratch);
      at_least[b] = above[b];
      for (size_t i = 0; i < size_t(kBlock) && missing > 0; ++i)
        if (x[i] == tau) {
          missing -= weight[i];
          at_least[b] += weight[i];
          last = b * kBlock + i;
        }
    }
  }
  return last;
}

// Adds to the masses per block the weights of a list, times `sign`. `so_far` has room for a number
// per block.
void add_by_block(const Survivors& list, int64_t sign, size_t blocks, int64_t* so_far,
                  int64_t* mass) {
  // The sum up to the end of each block that has any: sums of their own would wait for memory with
  // every token.
  std::fill(so_far, so_far + blocks, int64_t(-1));
  int64_t total = 0;
  for (size_t i = 0; i < list.size; ++i) {
    total += list.weight[i];
    so_far[size_t(list.ids[i]) / kBlock] = total;
  }
  int64_t before = 0;
  for (size_t b = 0; b < blocks; ++b) {
    if (so_far[b] < 0) continue;
    mass[b] += sign * (so_far[b] - before);
    before = so_far[b];
  }
}

size_t count_in_block(const Row& row, size_t b, float low, float high) {
  alignas(64) float scratch[kBlock];
  const float* x = row.values(b, scratch);
  return row.kernels->count_at_least(x, kBlock, low) - row.kernels->count_at_least(x, kBlock, high);
}

// Whether a value makes up much of the first blocks that can have it.
bool is_common(const Row& row, float value) {
  const float next = next_above(value);
  size_t looked_at = 0, found = 0;
  for (size_t b = 0; b < row.blocks && looked_at < 64; ++b) {
    if (row.block_max[b] < value) continue;
    found += count_in_block(row, b, value, next);
    ++looked_at;
  }
  return found > 8 * looked_at;
}

// Cuts the row where the mass of the largest values reaches p of the total, and leaves the kept
// mass per block in the workspace.
//
// On a peaked row few tokens weigh p of the total: they are marked while the row is weighed, and
// listed. Else this is a search that holds the exact mass, per block, of the values >= v. A guess
// says where the cut should be from there; what lies between is listed, weighed and either has the
// cut or moves v.
void cut_top_p(const Row& row, Exp2 exp2, double p, Kept& kept, Workspace& workspace) {
  const RowKernels& ops = row.ops();
  Survivors& list = workspace.survivors;
  int64_t* all = workspace.all_mass.reserve(row.blocks);
  int64_t* mass = workspace.block_mass.reserve(row.blocks);
  int64_t* high = workspace.high_mass.reserve(row.blocks);

  const Histogram guess(row, exp2, Histogram::kMass);
  float v = std::max(guess.reaching(p), kept.tau);
  // More than the guess has above v, for it may be wrong.
  const double enough = 1.25 * guess.count(v, INFINITY) + 64.0;
  const bool peaked = kept.whole_row() && enough < std::clamp(double(row.n) / 32.0, 1024.0, 4096.0);
  int64_t total;
  bool listed_all = false;
  if (peaked) {
    const float low = guess.with_count(enough);
    Marks* marks = workspace.marks.reserve(row.blocks);
    const size_t marked = ops.mass_and_marks(row, exp2, low, all, marks);
    total = sum(all, row.blocks);
    listed_all = marked <= 4096;
    if (listed_all) {
      v = low;
      list.collect_marked(row, marks, marked, v);
      list.weigh(row, exp2);
    }
  } else if (kept.whole_row()) {
    ops.mass(row, exp2, v, all, mass);
    total = sum(all, row.blocks);
  } else {
    total = sum(kept_mass(row, kept, exp2, workspace), row.blocks);
  }
  const int64_t target = share_of(p, total);
  // The cut is in [lowest, highest).
  float lowest = kept.tau, highest = next_above(row.max);
  if (listed_all && list.mass(row) >= target) {
    const Prefix prefix = find_prefix(row, list, v, highest, target);
    list.keep(row, prefix.tau, prefix.ties);
    kept.listed = true;
    return;
  }
  if (listed_all) {
    std::fill(mass, mass + row.blocks, int64_t(0));
    add_by_block(list, 1, row.blocks, high, mass);
  } else if (peaked || !kept.whole_row()) {
    ops.mass(row, exp2, v, nullptr, mass);
  }
  int64_t reached = sum(mass, row.blocks);

  for (int round = 0;; ++round) {
    const bool up = reached >= target;  // the cut is at v or above, else below
    const double missing = double(up ? reached - target : target - reached);
    const double reach = std::ldexp(1.5 * missing + guess.mass_of_sample(v), 2 * round);
    float from, to;
    if (up) {
      lowest = from = v;
      to = std::clamp(guess.above(v, reach), next_above(v), highest);
    } else {
      highest = to = v;
      from = std::max(guess.below(v, reach), lowest);
    }

    // However badly the guess fits the row, the search ends: with a list of any length.
    const bool last_round = round >= 24;
    if (last_round) {
      from = up ? v : lowest;
      to = up ? highest : v;
    }
    const size_t limit = last_round ? kNoLimit : short_list(row);
    const bool crowded = !last_round && guess.count(from, to) > 2.0 * double(limit);
    list.clear();
    if (!crowded && list.collect(row, from, to, kAllTies, limit)) {
      list.weigh(row, exp2);
      const int64_t listed = list.mass(row);
      const int64_t above = up ? reached - listed : reached;  // mass of values >= to
      if (above < target && target <= above + listed) {
        const Prefix prefix = find_prefix(row, list, from, to, target - above);
        kept.tau = prefix.tau;
        kept.last = prefix.last;
        row.kernels->clear_weights(list.x, list.ids, list.size, kept.tau, kept.last, !up,
                                   list.weight);
        add_by_block(list, up ? -1 : 1, row.blocks, high, mass);
        break;
      }
      if (last_round) break;  // only where another thread writes to the row
      // Everything listed lies on one side of the cut.
      add_by_block(list, up ? -1 : 1, row.blocks, high, mass);
      v = up ? to : from;
      reached = up ? above : above + listed;
      continue;
    }

    // Too many values to list: another exact point. Is v itself the cut, being very common?
    if (up && is_common(row, v)) {
      const float next = next_above(v);
      ops.mass(row, exp2, next, nullptr, high);
      reached = sum(high, row.blocks);
      if (reached < target) {
        kept.last = last_of_ties(row, exp2, v, target - reached, mass, high);
        kept.tau = v;
        break;
      }
      std::swap(mass, high);
      v = next;
      continue;
    }
    v = up ? guess.above(v, missing) : guess.below(v, missing);
    if (round > 3 || !(v > lowest && v < highest))  // no luck: halve the range of float keys
      v = from_key(int32_t((int64_t(to_key(lowest)) + to_key(highest)) / 2));
    ops.mass(row, exp2, v, nullptr, mass);
    reached = sum(mass, row.blocks);
  }
  if (mass != workspace.block_mass.get())
    std::copy(mass, mass + row.blocks, workspace.block_mass.get());
  kept.scale = exp2.scale;
  list.clear();
}

// ---- min-p and greedy -------------------------------------------------------------------------

// ln(m) for m in (0, 1], from correctly rounded operations alone: the same on every machine.
// m = f * 2^e, ln f = 2 artanh((f - 1) / (f + 1)) by its series; |z| <= 0.172, so 12 terms leave
// less than 2^-60.
double natural_log(double m) {
  int e;
  double f = std::frexp(m, &e);
  if (f < 0.70710678118654752) {
    f *= 2.0;
    --e;
  }
  const double z = (f - 1.0) / (f + 1.0), z2 = z * z;
  double series = 0.0;
  for (int k = 23; k >= 1; k -= 2) series = series * z2 + 1.0 / k;
  return e * 0.69314718055994531 + 2.0 * z * series;
}

float min_p_bound(const Row& row, double temperature, double min_p) {
  const double bound = double(row.max) + temperature * natural_log(min_p);
  return float(std::max(bound, double(-FLT_MAX)));
}

size_t first_of(const Row& row, float value) {
  size_t b = 0;
  while (row.block_max[b] != value) ++b;
  alignas(64) float scratch[kBlock];
  const float* x = row.values(b, scratch);
  return b * kBlock + size_t(std::find(x, x + kBlock, value) - x);
}

// About how many values reach tau, by 16 of the blocks that have any.
size_t expected_count(const Row& row, float tau) {
  size_t blocks = 0, looked_at = 0, found = 0;
  for (size_t b = 0; b < row.blocks; ++b) blocks += row.block_max[b] >= tau;
  for (size_t b = 0, skip = 0; b < row.blocks; ++b) {
    if (row.block_max[b] < tau) continue;
    if (skip > 0) {
      --skip;
      continue;
    }
    skip = blocks / 16;
    found += count_in_block(row, b, tau, INFINITY);
    ++looked_at;
  }
  return looked_at ? found * blocks / looked_at : 0;
}

bool has_at_least(const Row& row, const Kept& kept, size_t count) {
  if (count <= 1) return true;
  alignas(64) float scratch[kBlock];
  size_t seen = 0;
  for (size_t b = 0; b < row.blocks && seen < count; ++b) {
    if (row.block_max[b] < kept.tau) continue;
    const float* x = row.values(b, scratch);
    for (size_t i = 0; i < size_t(kBlock); ++i) seen += kept.has(x[i], b * kBlock + i);
  }
  return seen >= count;
}

}  // namespace

// ---- what is kept, by threshold ---------------------------------------------------------------

void weigh_block(const Row& row, const Kept& kept, Exp2 exp2, size_t b, int64_t weight[kBlock]) {
  alignas(64) float scratch[kBlock];
  const float* x = row.values(b, scratch);
  int32_t ids[kBlock];
  std::iota(ids, ids + kBlock, int32_t(b * kBlock));
  const size_t count = std::min(row.left(b), size_t(kBlock));
  row.kernels->weigh(x, ids, count, row.block_max, exp2, weight);
  std::fill(weight + count, weight + kBlock, int64_t(0));
  if (kept.whole_row()) return;
  row.kernels->clear_weights(x, ids, kBlock, kept.tau, kept.last, true, weight);
}

const int64_t* kept_mass(const Row& row, const Kept& kept, Exp2 exp2, Workspace& workspace) {
  int64_t* mass = workspace.block_mass.reserve(row.blocks);
  if (kept.scale == exp2.scale) return mass;
  const RowKernels& ops = row.ops();
  if (kept.whole_row()) {
    ops.mass(row, exp2, INFINITY, mass, workspace.high_mass.reserve(row.blocks));
    return mass;
  }
  ops.mass(row, exp2, kept.tau, nullptr, mass);
  if (kept.last / kBlock < row.blocks) {
    // From the last tie on, values have to be above the threshold.
    int64_t* above = workspace.high_mass.reserve(row.blocks);
    ops.mass(row, exp2, next_above(kept.tau), nullptr, above);
    const size_t b = kept.last / kBlock;
    std::copy(above + b, above + row.blocks, mass + b);
    int64_t weight[kBlock];
    weigh_block(row, kept, exp2, b, weight);
    mass[b] = sum(weight, kBlock);
  }
  return mass;
}

void make_list(const Row& row, Kept& kept, Survivors& list) {
  list.clear();
  list.collect(row, kept.tau, INFINITY, kAllTies, kNoLimit);
  list.keep(row, kept);
  kept.listed = true;
}

Cut cut(const Row& row, const fs_params& params, Workspace& workspace) {
  Survivors& list = workspace.survivors;
  list.clear();
  Kept kept;
  if (params.temperature == 0.0) {
    list.assign(first_of(row, row.max), row.max);
    kept.listed = true;
    return {kept, {row.max, exp2_scale(1.0)}};
  }

  const size_t at_least = std::min(size_t(params.min_tokens_to_keep), row.n);
  const auto list_largest = [&](Exp2 exp2, size_t k) {
    list_top_k(row, exp2, k, list);
    kept.listed = true;
  };
  double temperature = 1.0;
  for (const uint8_t* stage = params.order; stage != params.order + 8 && *stage; ++stage) {
    if (!is_active(params, *stage)) continue;
    const Exp2 exp2{row.max, exp2_scale(temperature)};
    switch (*stage) {
      case FS_STAGE_TEMPERATURE: temperature = params.temperature; break;

      case FS_STAGE_TOP_K: {
        const size_t k = std::min(std::max(size_t(params.top_k), at_least), row.n);
        if (kept.listed) {
          keep_top_k(row, list, k);
        } else if (k < row.n) {
          list_largest(exp2, k);
          list.keep(row, kept);
        }
        break;
      }

      case FS_STAGE_TOP_P:
        if (!kept.listed && row.n <= kSmallRow) make_list(row, kept, list);
        if (kept.listed) {
          list.weigh(row, exp2);
          keep_top_p(row, list, params.top_p, at_least);
        } else {
          cut_top_p(row, exp2, params.top_p, kept, workspace);
          if (kept.listed ? list.size < at_least : !has_at_least(row, kept, at_least))
            list_largest(exp2, at_least);
        }
        break;

      case FS_STAGE_MIN_P: {
        const float bound = min_p_bound(row, temperature, params.min_p);
        if (kept.listed) {
          if (row.kernels->count_at_least(list.x, list.size, bound) < at_least)
            keep_top_k(row, list, at_least);
          else
            list.keep(row, bound, kAllTies);
          break;
        }
        Kept narrower;
        narrower.tau = bound;
        if (!has_at_least(row, narrower, at_least)) {
          list_largest(exp2, at_least);
          list.keep(row, kept);
        } else if (bound > kept.tau) {
          kept = narrower;
          // Mostly few are left, and a list of them is cheaper than another pass over the row.
          kept.listed = expected_count(row, bound) < short_list(row);
          if (kept.listed) list.collect(row, bound, INFINITY, kAllTies, kNoLimit);
        }
        break;
      }
    }
  }
  return {kept, {row.max, exp2_scale(temperature)}};
}

}  // namespace fastsample
