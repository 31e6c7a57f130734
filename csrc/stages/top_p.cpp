// Top-p: the shortest prefix, by falling value and rising id, whose mass reaches p of the total.

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lists/histogram.h"
#include "lists/largest.h"
#include "lists/search.h"
#include "stages/stage.h"

namespace fastsample {

namespace {

int64_t sum(const int64_t* mass, size_t n) { return std::accumulate(mass, mass + n, int64_t(0)); }

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
  float tau;
  if (list.size <= size_t(kSlack)) {
    size_t tied;
    tau = std::max(low, kernels->reaching_of_few(list.x, list.weight, list.size, target, &tied));
    if (tied == 1 && tau > low)  // which is most rows
      return {tau, 1, size_t(list.ids[kernels->find(list.x, 0, list.size, tau)])};
  } else {
    tau = highest_reaching(kernels, list.x, list.size, low, high, list.mass(row), target, mass);
  }
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

// Weighs a row, per block, and lists and weighs its values >= low. Says whether these were few
// enough.
bool weigh_and_list(const Row& row, Exp2 exp2, float low, int64_t* all, Workspace& workspace) {
  Marks* marks = workspace.marks.reserve(row.blocks);
  const size_t marked = row.mass_and_marks(exp2, low, all, marks);
  if (marked > kShortList) return false;
  workspace.survivors.collect_marked(row, marks, marked, low);
  workspace.survivors.weigh(row, exp2);
  return true;
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

// Drops from a weighed list what is beyond, down to `at_least` tokens.
void keep_top_p(const Row& row, Survivors& list, double p, size_t at_least) {
  const int64_t target = share_of(p, list.mass(row));
  const Prefix prefix = find_prefix(row, list, list.lower_bound, next_above(row.max), target);
  const auto above = [&] {
    return row.kernels->count_at_least(list.x, list.size, next_above(prefix.tau));
  };
  if (at_least > 1 && above() + prefix.ties < at_least)
    keep_top_k(row, list, at_least);
  else
    list.keep(row, prefix.tau, prefix.ties);
}

// Cuts a row, and leaves in the workspace the list of what is kept, or its mass per block.
//
// On a peaked row few tokens weigh p of the total: they are marked while the row is weighed, and
// listed. Else this is a search that holds the exact mass, per block, of the values >= v. A guess
// says where the cut should be from there; what lies between is listed, weighed and either has the
// cut or moves v.
void cut_top_p(const Row& row, Exp2 exp2, double p, Kept& kept, Workspace& workspace) {
  Survivors& list = workspace.survivors;
  int64_t* all = workspace.all_mass.reserve(row.blocks);
  int64_t* mass = workspace.block_mass.reserve(row.blocks);
  int64_t* high = workspace.high_mass.reserve(row.blocks);

  const Histogram guess(row, exp2, Histogram::kMass);
  float v = std::max(guess.reaching(p), kept.tau);
  // More than the guess has above v, for it may be wrong.
  const double enough = 1.25 * guess.count(v, INFINITY) + 64.0;
  const double few = std::clamp(double(row.n) / 32.0, 1024.0, double(kShortList));
  const bool peaked = kept.whole_row() && enough < few;
  int64_t total;
  bool listed = false;
  if (peaked) {
    const float low = guess.with_count(enough);
    listed = weigh_and_list(row, exp2, low, all, workspace);
    if (listed) v = low;
    total = sum(all, row.blocks);
  } else if (kept.whole_row()) {
    row.mass(exp2, v, all, mass);
    total = sum(all, row.blocks);
  } else {
    total = sum(kept_mass(row, kept, exp2, workspace), row.blocks);
  }
  const int64_t target = share_of(p, total);
  // The cut is in [lowest, highest).
  float lowest = kept.tau, highest = next_above(row.max);
  if (listed && list.mass(row) >= target) {
    const Prefix prefix = find_prefix(row, list, v, highest, target);
    list.keep(row, prefix.tau, prefix.ties);
    kept.listed = true;
    return;
  }
  if (listed) {
    std::fill(mass, mass + row.blocks, int64_t(0));
    list.add_by_block(list.size, 1, row.blocks, high, mass);
  } else if (peaked || !kept.whole_row()) {
    row.mass(exp2, v, nullptr, mass);
  }
  int64_t reached = sum(mass, row.blocks);

  for (int round = 0;; ++round) {
    const bool up = reached >= target;  // the cut is at v or above, else below
    const double missing = double(up ? reached - target : target - reached);
    const double reach = std::ldexp(1.5 * missing + guess.mass_of_sample(v), 2 * round);
    float from, to;
    if (up) {
      lowest = from = v;
      to = std::min(std::max(next_above(v), guess.above(v, reach)), highest);
    } else {
      highest = to = v;
      from = std::max(std::min(v, guess.below(v, reach)), lowest);
    }

    // However badly the guess fits the row, the search ends: with a list of any length.
    const bool last_round = round >= 24;
    if (last_round) {
      from = up ? v : lowest;
      to = up ? highest : v;
    }
    const size_t limit = last_round ? kNoLimit : short_list(row);
    const bool crowded = round < 3 && guess.count(from, to) > 2.0 * double(limit);
    list.clear();
    if (!crowded && list.collect(row, from, to, kAllTies, limit)) {
      list.weigh(row, exp2);
      const int64_t between = list.mass(row);
      const int64_t above = up ? reached - between : reached;  // mass of values >= to
      if (above < target && target <= above + between) {
        const Prefix prefix = find_prefix(row, list, from, to, target - above);
        kept.tau = prefix.tau;
        kept.last = prefix.last;
        row.kernels->clear_weights(list.x, list.ids, list.size, kept.tau, kept.last, !up,
                                   list.weight);
        list.add_by_block(list.size, up ? -1 : 1, row.blocks, high, mass);
        break;
      }
      if (last_round) break;  // only where another thread writes to the row
      // Everything listed lies on one side of the cut.
      list.add_by_block(list.size, up ? -1 : 1, row.blocks, high, mass);
      v = up ? to : from;
      reached = up ? above : above + between;
      continue;
    }

    // Too many values to list: another exact point. Is v itself the cut, being very common?
    if (up && is_common(row, v)) {
      const float next = next_above(v);
      row.mass(exp2, next, nullptr, high);
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
    if (round > 2 || !(v > lowest && v < highest)) {
      // No luck: by turns the middle of what was listed, and halfway in the order of floats.
      const bool by_list = round % 2 == 1 && list.size > 1;
      v = by_list ? kth_largest(row, list.x, list.size, from, list.size / 2) : lowest;
      if (!(v > lowest && v < highest))
        v = from_key(int32_t((int64_t(to_key(lowest)) + to_key(highest)) / 2));
    }
    row.mass(exp2, v, nullptr, mass);
    reached = sum(mass, row.blocks);
  }
  if (mass != workspace.block_mass.get())
    std::copy(mass, mass + row.blocks, workspace.block_mass.get());
  kept.scale = exp2.scale;
  list.clear();
}

void run(Cutting& cutting, const double* value) {
  const Row& row = cutting.row;
  Kept& kept = cutting.kept;
  if (!kept.listed && row.n <= kSmallRow) make_list(row, kept, cutting.list());
  if (kept.listed) {
    cutting.list().weigh(row, cutting.exp2());
    keep_top_p(row, cutting.list(), value[0], cutting.at_least);
    return;
  }
  const Kept before = kept;
  cut_top_p(row, cutting.exp2(), value[0], kept, cutting.workspace);
  if (kept.listed ? cutting.list().size < cutting.at_least
                  : !has_at_least(row, kept, cutting.at_least)) {
    kept = before;
    keep_largest(cutting, cutting.at_least);
  }
}

}  // namespace

extern const Stage kTopP;
const Stage kTopP = {{{"top_p", "in [0, 1]", [](double v) { return v >= 0.0 && v <= 1.0; }, 1.0}},
                     [](const double* value) { return value[0] == 1.0; },
                     run,
                     true};

}  // namespace fastsample
