// Typical-p (Meister et al. 2023): the tokens whose surprise is nearest to the entropy, as many as
// weigh p together. By rising distance, then falling value, then rising id: a band of values, with
// part of what is equal at one of its ends.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "elementary.h"
#include "lists/band.h"
#include "lists/histogram.h"
#include "lists/search.h"
#include "stages/stage.h"

namespace fastsample {

namespace {

// What is kept has to be so much, and so many.
struct Target {
  int64_t mass;
  size_t count;

  bool reached(int64_t m, size_t n) const { return m >= mass && n >= count; }
};

// Marks the nearest tokens of a weighed list that reach the target, or all. Quickselect: of a part
// of the places, what is nearer than one of them is set apart.
void mark_nearest(const Band& band, const Survivors& list, Target target, Workspace& workspace) {
  const size_t n = list.size;
  double* distance = workspace.distances.reserve(n);
  uint32_t* places = workspace.places.reserve(n);
  uint8_t* stays = workspace.stays.reserve(n);
  for (size_t i = 0; i < n; ++i) distance[i] = band.distance(list.x[i]);
  std::iota(places, places + n, 0u);
  std::fill(stays, stays + n, uint8_t(0));

  const auto mass_of = [&](const uint32_t* from, const uint32_t* to) {
    int64_t mass = 0;
    for (; from != to; ++from) mass += list.weight[*from];
    return mass;
  };
  uint32_t *begin = places, *end = places + n;
  int64_t mass = 0;  // of what is nearer than all from begin to end - 1
  while (begin != end) {
    const double a = distance[*begin], b = distance[begin[(end - begin) / 2]],
                 c = distance[end[-1]];
    const double pivot = std::max(std::min(a, b), std::min(std::max(a, b), c));
    uint32_t* nearer = std::partition(begin, end, [&](uint32_t i) { return distance[i] < pivot; });
    const int64_t nearer_mass = mass + mass_of(begin, nearer);
    if (target.reached(nearer_mass, size_t(nearer - places))) {
      end = nearer;
      continue;
    }
    uint32_t* equal = std::partition(nearer, end, [&](uint32_t i) { return distance[i] == pivot; });
    const int64_t equal_mass = nearer_mass + mass_of(nearer, equal);
    if (!target.reached(equal_mass, size_t(equal - places))) {
      begin = equal;
      mass = equal_mass;
      continue;
    }
    // Part of what is equal, in order.
    const auto before = [&](uint32_t i, uint32_t j) {
      return list.x[i] != list.x[j] ? list.x[i] > list.x[j] : list.ids[i] < list.ids[j];
    };
    if (!std::is_sorted(nearer, equal, before)) std::sort(nearer, equal, before);
    mass = nearer_mass;
    begin = nearer;
    while (begin != equal && !target.reached(mass, size_t(begin - places)))
      mass += list.weight[*begin++];
    break;
  }
  for (const uint32_t* i = places; i != begin; ++i) stays[*i] = 1;
}

void keep_of_list(Cutting& cutting, const Band& band, Target target) {
  Survivors& list = cutting.list();
  mark_nearest(band, list, target, cutting.workspace);
  list.keep_marked(cutting.workspace.stays.get());
  cutting.row.take_maxima(list.x, list.ids, list.size);
  cutting.kept = Kept{};
  cutting.kept.listed = true;
}

void list_all(Cutting& cutting) {
  cutting.kept = Kept{};
  make_list(cutting.row, cutting.kept, cutting.list());
  cutting.list().weigh(cutting.row, cutting.exp2());
}

// A search for the distance of a row's last token that is kept. It holds the exact mass of what is
// no farther than some distance; a guess says where the cut should be from there. What lies between
// is listed, and either has the cut or moves on.
class Search {
 public:
  Search(Cutting& cutting, const Band& band, Target target, int64_t total)
      : cutting_(cutting),
        row_(cutting.row),
        list_(cutting.list()),
        band_(band),
        target_(target),
        total_(total),
        guess_(cutting.row, cutting.exp2(), Histogram::kMass) {}

  void run() {
    const double share = double(target_.mass) / double(total_);
    const double all = guess_.around(band_.centre(), INFINITY, INFINITY).mass;
    double distance =
        band_.to_distance(guess_.around(band_.centre(), share * all, INFINITY).radius);
    if (!cut_peaked(distance) && !cut_flat(distance)) {
      list_all(cutting_);
      keep_of_list(cutting_, band_, target_);
    }
  }

 private:
  // On a peaked row few tokens are no farther than that, or above: with all of these in a list, it
  // has the cut.
  bool cut_peaked(double distance) {
    const Interval near = band_.within(distance);
    const double enough = 1.25 * guess_.count(near.low, INFINITY) + 64.0;
    if (!(enough < std::clamp(double(row_.n) / 32.0, 1024.0, double(kShortList)))) return false;
    const float low = guess_.with_count(enough);
    list_.clear();
    if (!list_.collect(row_, low, INFINITY, kAllTies, kShortList)) return false;
    list_.weigh(row_, cutting_.exp2());
    // What is not listed is farther than any listed one that is nearer than `low`.
    const double reach = band_.distance(low);
    int64_t mass = 0;
    size_t count = 0;
    for (size_t i = 0; i < list_.size; ++i) {
      const bool sure = band_.distance(list_.x[i]) <= reach;
      mass += sure ? list_.weight[i] : 0;
      count += sure;
    }
    if (!(low <= band_.centre()) || !target_.reached(mass, count)) return false;
    keep_of_list(cutting_, band_, target_);
    return true;
  }

  // False where only a list of all will do.
  bool cut_flat(double distance) {
    double nearest = -1.0, farthest = INFINITY;  // the cut is beyond the one, and not the other
    int64_t mass = mass_within(band_.within(distance));
    for (int round = 0; round < 40; ++round) {
      const bool inside = mass >= target_.mass;
      (inside ? farthest : nearest) = distance;
      const double missing = std::abs(double(mass) - double(target_.mass));
      const double step = std::ldexp(1.5 * missing + double(total_) / 512.0, 2 * round);
      double other = by_guess(distance, inside ? -step : step);
      // A guess that does not move knows nothing.
      if (inside)
        other = other < distance ? std::max(other, nearest) : nearest;
      else
        other = other > distance ? std::min(other, farthest) : farthest;
      const double inner = std::min(distance, other), outer = std::max(distance, other);
      if (list_between(inner, outer)) {
        const int64_t between = list_.mass(row_);
        const int64_t inner_mass = inside ? mass - between : mass;
        if (inner_mass < target_.mass && inner_mass + between >= target_.mass)
          return keep_with(band_.within(inner), inner_mass);
        distance = other;
        mass = inside ? inner_mass : inner_mass + between;
        continue;
      }
      // Too many to list: another exact point. Where the guess has the cut, or a listed token, or
      // by turns halfway between what is known, in the order of floats.
      const int turn = round % 3;
      distance = by_guess(distance, inside ? -missing : missing);
      const bool is_token = turn == 1 || !(distance > nearest && distance < farthest);
      if (is_token && list_.size) distance = band_.distance(list_.x[list_.size / 2]);
      if (turn == 2 || !(distance > nearest && distance <= farthest))
        distance = halfway(nearest, farthest);
      mass = mass_within(band_.within(distance));
      if (!is_token || mass < target_.mass) continue;
      // Is it what very many have?
      const Interval nearer = band_.nearer(distance);
      const int64_t nearer_mass = mass_within(nearer);
      if (nearer_mass < target_.mass) return keep_ties(distance, nearer, nearer_mass);
      distance = below(distance);
      mass = nearer_mass;
    }
    return false;
  }

  static double below(double d) { return d > 0.0 ? std::nextafter(d, 0.0) : -1.0; }
  static double halfway(double a, double b) {
    int64_t low, high;
    a = std::max(a, 0.0);
    std::memcpy(&low, &a, sizeof low);
    std::memcpy(&high, &b, sizeof high);
    const int64_t middle = low + (high - low) / 2;
    std::memcpy(&a, &middle, sizeof a);
    return a;
  }

  double by_guess(double distance, double more) const {
    const float radius = band_.to_radius(distance);
    const double here = guess_.around(band_.centre(), INFINITY, radius).mass;
    return band_.to_distance(guess_.around(band_.centre(), here + more, INFINITY).radius);
  }

  int64_t mass_from(float low) const {
    if (low > row_.max) return 0;
    int64_t* mass = cutting_.workspace.all_mass.reserve(row_.blocks);
    row_.mass(cutting_.exp2(), low, nullptr, mass);
    return std::accumulate(mass, mass + row_.blocks, int64_t(0));
  }
  int64_t mass_within(Interval i) const {
    return i.empty() ? 0 : mass_from(i.low) - mass_from(next_above(i.high));
  }

  // Lists and weighs what is farther than the one and no farther than the other, unless it is much.
  bool list_between(double inner, double outer) {
    const Interval in = band_.within(inner), out = band_.within(outer);
    const size_t limit = short_list(row_);
    list_.clear();
    if (out.empty()) return true;
    const float middle = in.empty() ? next_above(out.high) : in.low;
    if (!list_.collect(row_, out.low, middle, kAllTies, limit)) return false;
    if (!in.empty() && in.high < out.high &&
        !list_.collect(row_, next_above(in.high), next_above(out.high), kAllTies, limit))
      return false;
    list_.weigh(row_, cutting_.exp2());
    return true;
  }

  // Keeps what is inside and weighs so much, and the nearest of the list. False where that is not
  // an interval.
  bool keep_with(Interval inside, int64_t inside_mass) {
    mark_nearest(band_, list_, {target_.mass - inside_mass, 0}, cutting_.workspace);
    const uint8_t* stays = cutting_.workspace.stays.get();
    Interval all = inside;
    for (size_t i = 0; i < list_.size; ++i)
      if (stays[i]) all.include(list_.x[i]);
    // Which of the values at its ends stay, where not all do.
    size_t at_low = 0, at_high = 0;
    bool some_low = false, some_high = false;
    for (size_t i = 0; i < list_.size; ++i) {
      const float x = list_.x[i];
      const auto id = size_t(list_.ids[i]);
      if (!stays[i] && x > all.low && x < all.high) return false;
      if (x == all.low) stays[i] ? at_low = std::max(at_low, id) : some_low = true;
      if (x == all.high) stays[i] ? at_high = std::max(at_high, id) : some_high = true;
    }
    return keep_interval(all, some_low ? at_low : kNoLimit, some_high ? at_high : kNoLimit);
  }

  // Part of what is at a distance that very many have: at two values, or it is no interval.
  bool keep_ties(double distance, Interval nearer, int64_t mass) {
    const Interval all = band_.within(distance);
    const bool has_high = nearer.empty() || all.high != nearer.high;
    const bool has_low = nearer.empty() || all.low != nearer.low;
    if (nearer.empty() ? all.low != all.high
                       : (has_high && all.high != next_above(nearer.high)) ||
                             (has_low && next_above(all.low) != nearer.low))
      return false;
    Interval kept = nearer;
    if (has_high) {
      kept.include(all.high);
      const size_t last = last_with(all.high, mass);
      if (mass >= target_.mass) {
        const bool whole = kept.low != kept.high;
        return keep_interval(kept, whole ? kNoLimit : last, last);
      }
    }
    kept.include(all.low);
    return keep_interval(kept, last_with(all.low, mass), kNoLimit);
  }

  // The id of the token of this value with which the mass reaches the target, or of the last.
  size_t last_with(float value, int64_t& mass) const {
    int64_t* at_least = cutting_.workspace.all_mass.reserve(row_.blocks);
    int64_t* above = cutting_.workspace.high_mass.reserve(row_.blocks);
    row_.mass(cutting_.exp2(), value, nullptr, at_least);
    row_.mass(cutting_.exp2(), next_above(value), nullptr, above);
    const auto sum = [&](const int64_t* m) {
      return std::accumulate(m, m + row_.blocks, int64_t(0));
    };
    const int64_t missing = target_.mass - mass;
    mass += sum(at_least) - sum(above);
    return last_of_ties(row_, cutting_.exp2(), value, missing, at_least, above);
  }

  bool keep_interval(Interval kept, size_t last_low, size_t last_high) {
    if (target_.count > 1 &&
        row_.count(kept.low) - row_.count(next_above(kept.high)) < target_.count + kBlock)
      return false;  // perhaps too few
    list_.clear();
    cutting_.kept.listed = false;
    cutting_.kept.tau = kept.low;
    cutting_.kept.last = last_low;
    drop_above(cutting_, {kept.high, 0, last_high});
    list_if_short(cutting_);
    return true;
  }

  Cutting& cutting_;
  Row& row_;
  Survivors& list_;
  const Band& band_;
  const Target target_;
  const int64_t total_;
  const Histogram guess_;
};

void run(Cutting& cutting, const double* value) {
  const Sums sums = entropy_of(cutting);
  const Target target{share_of(value[0], sums.mass), cutting.at_least};
  const Band band(cutting.row.max, cutting.temperature, natural_log(in_units(sums.mass)),
                  entropy_in_nats(sums));
  if (cutting.kept.listed)
    keep_of_list(cutting, band, target);
  else
    Search(cutting, band, target, sums.mass).run();
}

}  // namespace

extern const Stage kTypicalP;
const Stage kTypicalP = {
    {{"typical_p", "in (0, 1]", [](double v) { return v > 0.0 && v <= 1.0; }, 1.0}},
    [](const double* value) { return value[0] == 1.0; },
    run,
    false};

}  // namespace fastsample
