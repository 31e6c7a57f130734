#include "lists/nearest.h"

#include <algorithm>

namespace fastsample {

namespace {

// What is no farther than a distance, or nearer.
struct Part {
  Interval values;
  double distance;
  int64_t mass;
  size_t count;
};

// How much of the list is within some distances. What is asked costs a pass over it in vectors,
// whereas to move tokens about would surprise the processor with every one.
class Search {
 public:
  Search(const Row& row, const Survivors& list, const Band& band, Target target)
      : row_(row), list_(list), band_(band), target_(target) {
    constexpr size_t kTogether = 16;  // one would wait for itself
    float low[kTogether];
    std::fill(low, low + kTogether, INFINITY);
    size_t i = 0;
    for (; i + kTogether <= list.size; i += kTogether)
      for (size_t k = 0; k < kTogether; ++k) low[k] = std::min(low[k], list.x[i + k]);
    for (; i < list.size; ++i) low[0] = std::min(low[0], list.x[i]);
    lowest_ = *std::min_element(low, low + kTogether);
    highest_ = row.kernels->largest_below(list.x, list.size, INFINITY);
  }

  // Leaves in `inner` less than the target, in `outer` what reaches it, and between them few values
  // or one distance.
  void run(Part& inner, Part& outer) const {
    enum { kLine, kLineAgain, kToken, kHalfway, kTurns };
    bool inner_was_last = false;
    for (int round = 0; round < 64 && outer.count - inner.count > kFew; ++round) {
      const int turn = round % kTurns;
      double distance = halfway(inner.distance, outer.distance);
      if (turn == kLine || turn == kLineAgain) {
        // A little beyond where a straight line has it, on the side that was not narrowed last.
        const double between = std::max(double(outer.mass) - double(inner.mass), 1.0);
        const double part = (double(target_.mass) - double(inner.mass)) / between +
                            (inner_was_last ? 0.0625 : -0.0625);
        distance = inner.distance +
                   std::clamp(part, 0.015625, 0.984375) * (outer.distance - inner.distance);
      }
      const bool is_token =
          turn == kToken || !(distance > inner.distance && distance < outer.distance);
      if (is_token) distance = band_.distance(one_between(inner, outer));
      const Part part = measure(band_.within(distance), distance);
      inner_was_last = !target_.reached(part.mass, part.count);
      if (inner_was_last) {
        inner = part;
        continue;
      }
      outer = part;
      if (!is_token) continue;
      const Part nearer = measure(band_.nearer(distance), distance);
      if (!target_.reached(nearer.mass, nearer.count)) {
        inner = nearer;
        return;
      }
      outer = nearer;
    }
  }

  Part all() const {
    return measure({lowest_, highest_},
                   std::max(band_.distance(lowest_), band_.distance(highest_)));
  }

 private:
  Part measure(Interval values, double distance) const {
    if (values.empty()) return {values, distance, 0, 0};
    Part part{values, distance, mass_from(values.low), count_from(values.low)};
    if (values.high < highest_) {
      part.mass -= mass_from(next_above(values.high));
      part.count -= count_from(next_above(values.high));
    }
    return part;
  }
  int64_t mass_from(float low) const {
    return row_.kernels->mass_at_least(list_.x, list_.weight, list_.size, low);
  }
  size_t count_from(float low) const {
    return row_.kernels->count_at_least(list_.x, list_.size, low);
  }
  float one_between(const Part& inner, const Part& outer) const {
    size_t i = 0;
    while (!outer.values.has(list_.x[i]) || inner.values.has(list_.x[i])) ++i;
    return list_.x[i];
  }

  const Row& row_;
  const Survivors& list_;
  const Band& band_;
  const Target target_;
  float lowest_, highest_;
};

}  // namespace

Nearest nearest_of(const Row& row, const Survivors& list, const Band& band, Target target,
                   Workspace& workspace) {
  const Search search(row, list, band, target);
  Part inner{{}, -1.0, 0, 0}, outer = search.all();
  if (!target.reached(outer.mass, outer.count)) return {outer.values, nullptr, 0, 0};
  search.run(inner, outer);

  // What is in the one and not in the other: the larger ones first, which are taken first where all
  // have one distance.
  uint32_t* places = workspace.places.reserve(list.size + kSlack);
  size_t count = 0;
  const auto add = [&](float low, float high) {
    auto* more = reinterpret_cast<int32_t*>(places + count);
    count += row.kernels->places_within(list.x, list.size, low, high, more);
  };
  const float beyond = next_above(outer.values.high);
  if (inner.values.empty()) {
    add(outer.values.low, beyond);
  } else {
    add(next_above(inner.values.high), beyond);
    add(outer.values.low, inner.values.low);
  }
  double* distance = workspace.distances.reserve(list.size);
  for (size_t k = 0; k < count; ++k) distance[places[k]] = band.distance(list.x[places[k]]);
  const auto before = [&](uint32_t i, uint32_t j) {
    if (distance[i] != distance[j]) return distance[i] < distance[j];
    return list.x[i] != list.x[j] ? list.x[i] > list.x[j] : list.ids[i] < list.ids[j];
  };
  // Equal values are in order, however many they are.
  if (!std::is_sorted(places, places + count, before)) std::sort(places, places + count, before);
  Nearest nearest{inner.values, places, 0, count};
  int64_t mass = inner.mass;
  while (nearest.taken < count && !target.reached(mass, inner.count + nearest.taken))
    mass += list.weight[places[nearest.taken++]];
  return nearest;
}

}  // namespace fastsample
