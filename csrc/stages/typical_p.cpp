// Typical-p (Meister et al. 2023): the tokens whose surprise is nearest to the entropy, as many as
// weigh p together. By rising distance, then falling value, then rising id: a band of values, with
// part of what is equal at one of its ends.
#include <algorithm>
#include <numeric>

#include "elementary.h"
#include "lists/histogram.h"
#include "lists/nearest.h"
#include "lists/search.h"
#include "stages/stage.h"

namespace fastsample {

namespace {

Band band_of(const Cutting& cutting, double log_total, double entropy) {
  return Band(cutting.row.max, cutting.temperature, log_total, entropy);
}
Band band_of(const Cutting& cutting, Sums sums) {
  return band_of(cutting, natural_log(in_units(sums.mass)), entropy_in_nats(sums));
}

void keep_of_list(Cutting& cutting, const Band& band, Target target) {
  Survivors& list = cutting.list();
  const Nearest kept = nearest_of(cutting.row, list, band, target, cutting.workspace);
  uint8_t* stays = cutting.workspace.stays.reserve(list.size);
  for (size_t i = 0; i < list.size; ++i) stays[i] = kept.inner.has(list.x[i]);
  for (size_t k = 0; k < kept.taken; ++k) stays[kept.places[k]] = 1;
  list.keep_marked(stays);
  cutting.row.take_maxima(list.x, list.ids, list.size);
  cutting.kept = Kept{};
  cutting.kept.listed = true;
}

void list_all(Cutting& cutting) {
  cutting.kept = Kept{};
  make_list(cutting.row, cutting.kept, cutting.list());
  cutting.list().weigh(cutting.row, cutting.exp2());
}

// A guess at the distance of the last token that is kept.
double guess_distance(const Histogram& guess, const Band& band, double p) {
  return band.to_distance(guess.around(band.centre(), p * guess.mass(), INFINITY).radius);
}

// More than the guess has from there on, for it may be wrong.
double count_from(const Histogram& guess, float low) {
  return 1.25 * guess.count(low, INFINITY) + 64.0;
}
bool are_few(const Row& row, double count) {
  return count < std::clamp(double(row.n) / 32.0, 1024.0, double(kShortList));
}

// A search for the distance of a row's last token that is kept. It holds the exact mass of what is
// no farther than some distance; a guess says where the cut should be from there. What lies between
// is listed, and either has the cut or moves on.
class Search {
 public:
  Search(Cutting& cutting, double p)
      : cutting_(cutting),
        row_(cutting.row),
        list_(cutting.list()),
        from_low_(cutting.workspace.all_mass.reserve(row_.blocks)),
        guess_(row_, cutting.exp2(), Histogram::kMass),
        low_(guess_low(p)),
        sums_(entropy_of(cutting, low_, from_low_)),
        band_(band_of(cutting, sums_)),
        target_{share_of(p, sums_.mass), cutting.at_least} {}

  void run() {
    const double distance =
        guess_distance(guess_, band_, double(target_.mass) / double(sums_.mass));
    cutting_.kept.scale = 0.0f;  // from here on masses per block are others
    if (!cut_peaked(distance) && !cut_flat(distance)) {
      list_all(cutting_);
      keep_of_list(cutting_, band_, target_);
    }
  }

 private:
  // Where the band may end: what weighs as much is summed while the entropy is. Where it has few
  // tokens they will be listed.
  float guess_low(double p) const {
    const Histogram::Summary about = guess_.summary();
    const Band band = band_of(cutting_, about.log_total, about.entropy);
    const Interval values = band.within(guess_distance(guess_, band, p));
    return are_few(row_, count_from(guess_, values.low)) ? INFINITY : values.low;
  }

  // On a peaked row few tokens are no farther than that, or above: with all of these in a list, it
  // has the cut.
  bool cut_peaked(double distance) {
    const double enough = count_from(guess_, band_.within(distance).low);
    if (!are_few(row_, enough)) return false;
    const float low = guess_.with_count(enough);
    list_.clear();
    if (!list_.collect(row_, low, INFINITY, kAllTies, kShortList)) return false;
    list_.weigh(row_, cutting_.exp2());
    // What is not listed is farther than any listed one that is nearer than `low`.
    const Interval sure = band_.within(band_.distance(low));
    const float above = next_above(sure.high);
    const int64_t mass = mass_of_list(sure.low) - mass_of_list(above);
    const size_t count = count_of_list(sure.low) - count_of_list(above);
    if (!(low <= band_.centre()) || !target_.reached(mass, count)) return false;
    keep_of_list(cutting_, band_, target_);
    return true;
  }
  int64_t mass_of_list(float low) const {
    return row_.kernels->mass_at_least(list_.x, list_.weight, list_.size, low);
  }
  size_t count_of_list(float low) const {
    return row_.kernels->count_at_least(list_.x, list_.size, low);
  }

  // False where only a list of all will do.
  bool cut_flat(double distance) {
    double nearest = -1.0, farthest = INFINITY;  // the cut is beyond the one, and not the other
    // What the pass for the entropy has summed is a start.
    if (low_ <= band_.centre() && band_.within(band_.distance(low_)).low == low_)
      distance = band_.distance(low_);
    int64_t mass = mass_within(band_.within(distance));
    for (int round = 0; round < 40; ++round) {
      const bool inside = mass >= target_.mass;
      (inside ? farthest : nearest) = distance;
      const double missing = std::abs(double(mass) - double(target_.mass));
      const double step = std::ldexp(1.5 * missing + double(sums_.mass) / 512.0, 2 * round);
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
      // Too many to list: another exact point. A value that most of them have, or where the guess
      // has the cut, or a listed token, or by turns halfway between what is known, in the order of
      // floats.
      const int turn = round % 3;
      distance = by_guess(distance, inside ? -missing : missing);
      const bool is_token =
          is_common() || turn == 1 || !(distance > nearest && distance < farthest);
      if (is_token && list_.size) distance = band_.distance(some_token());
      if ((turn == 2 && !is_common()) || !(distance > nearest && distance <= farthest))
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

  float some_token() const { return list_.x[list_.size / 2]; }
  // Whether half of the listed tokens are equal.
  bool is_common() const {
    if (!list_.size) return false;
    const float x = some_token();
    return 2 * (count_of_list(x) - count_of_list(next_above(x))) > list_.size;
  }
  static double below(double d) { return d > 0.0 ? std::nextafter(d, 0.0) : -1.0; }

  double by_guess(double distance, double more) const {
    const float radius = band_.to_radius(distance);
    const double here = guess_.around(band_.centre(), INFINITY, radius).mass;
    return band_.to_distance(guess_.around(band_.centre(), here + more, INFINITY).radius);
  }

  int64_t sum(const int64_t* mass) const {
    return std::accumulate(mass, mass + row_.blocks, int64_t(0));
  }
  int64_t mass_within(Interval i) {
    if (i.empty()) return 0;
    if (i.low != low_) row_.mass(cutting_.exp2(), i.low, nullptr, from_low_);
    low_ = i.low;
    const float above = next_above(i.high);
    if (above > row_.max) return sum(from_low_);
    int64_t* from_high = cutting_.workspace.high_mass.reserve(row_.blocks);
    row_.mass(cutting_.exp2(), above, nullptr, from_high);
    return sum(from_low_) - sum(from_high);
  }

  // Lists and weighs what is farther than the one and no farther than the other, unless it is much.
  bool list_between(double inner, double outer) {
    const Interval in = band_.within(inner), out = band_.within(outer);
    list_.clear();
    lows_ = {INFINITY, INFINITY, 0};
    if (out.empty()) return true;
    // Where it would be, some tell what they are like.
    const double expected =
        guess_.count(out.low, out.high) - (in.empty() ? 0.0 : guess_.count(in.low, in.high));
    const size_t limit = expected > double(short_list(row_)) ? 0 : short_list(row_);
    lows_ = {out.low, in.empty() ? next_above(out.high) : in.low, 0};
    if (!list_.collect(row_, lows_.outer, lows_.inner, kAllTies, limit)) return false;
    lows_.count = list_.size;
    if (!in.empty() && in.high < out.high &&
        !list_.collect(row_, next_above(in.high), next_above(out.high), kAllTies, limit))
      return false;
    list_.weigh(row_, cutting_.exp2());
    return true;
  }

  // Keeps what is inside and weighs so much, and the nearest of the list. False where that is not
  // an interval.
  bool keep_with(Interval inside, int64_t inside_mass) {
    const Nearest added =
        nearest_of(row_, list_, band_, {target_.mass - inside_mass, 0}, cutting_.workspace);
    Interval all = inside;
    if (!added.inner.empty()) all.include(added.inner);
    for (size_t k = 0; k < added.taken; ++k) all.include(list_.x[added.places[k]]);
    // Which of the values at its ends stay, where not all do.
    size_t at_low = 0, at_high = 0;
    bool some_low = false, some_high = false;
    for (size_t k = 0; k < added.count; ++k) {
      const uint32_t i = added.places[k];
      const float x = list_.x[i];
      const bool stays = k < added.taken;
      const auto id = size_t(list_.ids[i]);
      if (!stays && x > all.low && x < all.high) return false;
      if (x == all.low) stays ? at_low = std::max(at_low, id) : some_low = true;
      if (x == all.high) stays ? at_high = std::max(at_high, id) : some_high = true;
    }
    const bool has_masses = !some_low && move_masses(all.low);
    return keep_interval(all, some_low ? at_low : kNoLimit, some_high ? at_high : kNoLimit,
                         has_masses);
  }

  // Makes the masses per block those of values >= low, which is among those that were listed. False
  // where they are of other values than these.
  bool move_masses(float low) {
    const bool add = low_ == lows_.inner;
    if (!add && low_ != lows_.outer) return false;
    row_.kernels->clear_weights(list_.x, list_.ids, lows_.count, low, kNoLimit, add, list_.weight);
    int64_t* so_far = cutting_.workspace.high_mass.reserve(row_.blocks);
    list_.add_by_block(lows_.count, add ? 1 : -1, row_.blocks, so_far, from_low_);
    low_ = low;
    return true;
  }

  // Part of what is at a distance that very many have. False where that is not an interval.
  bool keep_ties(double distance, Interval nearer, int64_t mass) {
    Interval high = band_.within(distance), low;
    if (!nearer.empty()) {
      low = {high.low, from_key(to_key(nearer.low) - 1)};
      high.low = next_above(nearer.high);
    }
    Interval kept = count_in(nearer) ? nearer : Interval{};
    for (Interval* part : {&high, &low}) {
      if (!shrink_to_value(*part)) return false;
      if (part->empty()) continue;
      const bool is_high = part == &high;
      kept.include(part->low);
      const size_t last = last_with(part->low, mass);
      if (mass < target_.mass) continue;
      const bool is_all = kept.low == kept.high;
      return keep_interval(kept, is_high && !is_all ? kNoLimit : last,
                           is_high || is_all ? last : kNoLimit, false);
    }
    return false;
  }

  size_t count_in(Interval i) const {
    return i.empty() ? 0 : row_.count(i.low) - row_.count(next_above(i.high));
  }

  // Makes an interval the only value that the row has in it, if any. False where it has several.
  bool shrink_to_value(Interval& values) {
    if (values.empty()) return true;
    const size_t count = count_in(values);
    Interval value;
    if (count) {
      list_.clear();
      list_.collect(row_, values.low, next_above(values.high), kAllTies, 1);
      value.include(list_.x[0]);
      if (count_in(value) != count) return false;
    }
    values = value;
    return true;
  }

  // The id of the token of this value with which the mass reaches the target, or of the last.
  size_t last_with(float value, int64_t& mass) {
    int64_t* above = cutting_.workspace.high_mass.reserve(row_.blocks);
    row_.mass(cutting_.exp2(), value, nullptr, from_low_);
    row_.mass(cutting_.exp2(), next_above(value), nullptr, above);
    const int64_t missing = target_.mass - mass;
    mass += sum(from_low_) - sum(above);
    low_ = INFINITY;
    return last_of_ties(row_, cutting_.exp2(), value, missing, from_low_, above);
  }

  // `has_masses` says whether the masses per block are those of values >= kept.low.
  bool keep_interval(Interval kept, size_t last_low, size_t last_high, bool has_masses) {
    if (target_.count > 1) {
      Interval whole = kept;  // without ends of which only some stay
      if (last_low != kNoLimit) whole.low = next_above(whole.low);
      if (last_high != kNoLimit) whole.high = -next_above(-whole.high);
      if (count_in(whole) < target_.count + kBlock) return false;  // perhaps too few
    }
    list_.clear();
    cutting_.kept.listed = false;
    cutting_.kept.tau = kept.low;
    cutting_.kept.last = last_low;
    // Where both ends are one value, what the floor takes of it is all.
    if (kept.low == kept.high) last_high = kNoLimit;
    if (kept.high < row_.max || last_high != kNoLimit) {
      drop_above(cutting_, {kept.high, 0, last_high});
    } else if (has_masses) {
      std::copy(from_low_, from_low_ + row_.blocks, cutting_.workspace.block_mass.get());
      cutting_.kept.scale = cutting_.exp2().scale;
      return true;  // it can be drawn from without a list
    }
    list_if_short(cutting_);
    return true;
  }

  Cutting& cutting_;
  Row& row_;
  Survivors& list_;
  int64_t* from_low_;  // masses of values >= low_, per block
  const Histogram guess_;
  float low_;
  const Sums sums_;
  const Band band_;
  const Target target_;
  struct {
    float outer, inner;
    size_t count;
  } lows_{};  // of the values below the centre that were listed: in [outer, inner), so many
};

void run(Cutting& cutting, const double* value) {
  if (!is_listed(cutting)) return Search(cutting, value[0]).run();
  const Sums sums = entropy_of(cutting);
  const Target target{share_of(value[0], sums.mass), cutting.at_least};
  keep_of_list(cutting, band_of(cutting, sums), target);
}

}  // namespace

extern const Stage kTypicalP;
const Stage kTypicalP = {
    {{"typical_p", "in (0, 1]", [](double v) { return v > 0.0 && v <= 1.0; }, 1.0}},
    [](const double* value) { return value[0] == 1.0; },
    run,
    false};

}  // namespace fastsample
