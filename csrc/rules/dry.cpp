// DRY, don't repeat yourself: subtracts multiplier * base^(length - allowed) from an id that would
// prolong a repetition, whose length is that of the longest suffix of the history that has stood
// before the id. A match reaches over no breaker, and breakers are not penalised.
//
// Lengths are those of the Z algorithm, in a time linear in the window: read backwards, the suffix
// is a prefix. Places where the last token does not stand are skipped many at a time.
#include <cmath>

#include "elementary.h"
#include "rules/rule.h"

namespace fastsample {

namespace {

enum { kMultiplier, kBase, kAllowedLength, kLastN };

// base^e by squaring: correctly rounded products alone.
double repeated_product(double base, uint32_t e) {
  double result = 1.0;
  while (e) {
    if (e & 1) result *= base;
    e >>= 1;
    if (e) base *= base;
  }
  return result;
}

// The longest match of each id: those that are found, by a table of hashes.
class Longest {
 public:
  explicit Longest(Scratch& scratch) : found_(scratch.found), slots_(scratch.slots) {
    found_.clear();
    if (slots_.empty()) slots_.resize(64);
  }
  ~Longest() {  // leaves the table empty; where all are has to be known before any is gone
    for (Scratch::Found& found : found_) found.length = uint32_t(slot_of(found.id));
    for (const Scratch::Found& found : found_) slots_[found.length] = 0;
  }
  void add(int32_t id, uint32_t length) {
    if (last_ < found_.size() && found_[last_].id == id) {
      found_[last_].length = std::max(found_[last_].length, length);
      return;
    }
    size_t slot = slot_of(id);
    if (!slots_[slot]) {
      if (2 * (found_.size() + 1) > slots_.size()) {
        widen();
        slot = slot_of(id);
      }
      found_.push_back({id, 0});
      slots_[slot] = uint32_t(found_.size());
    }
    last_ = slots_[slot] - 1;
    found_[last_].length = std::max(found_[last_].length, length);
  }
  const std::vector<Scratch::Found>& found() const { return found_; }

 private:
  // Where an id is, or may be put.
  size_t slot_of(int32_t id) const {
    const size_t mask = slots_.size() - 1;
    size_t slot = (uint32_t(id) * 2654435761u >> 8) & mask;
    while (slots_[slot] && found_[slots_[slot] - 1].id != id) slot = (slot + 1) & mask;
    return slot;
  }
  void widen() {
    std::vector<uint32_t> wider(4 * slots_.size());
    slots_.swap(wider);
    for (size_t i = 0; i < found_.size(); ++i) slots_[slot_of(found_[i].id)] = uint32_t(i + 1);
  }

  std::vector<Scratch::Found>& found_;
  std::vector<uint32_t>& slots_;
  size_t last_ = ~size_t(0);  // that was added to
};

// The first place from i on, read backwards, that holds an id; n where none does.
size_t next_of(int32_t id, const int32_t* window, size_t n, size_t i) {
  constexpr size_t kTogether = 32;
  for (; n - i >= kTogether; i += kTogether) {
    const int32_t* at = window + (n - i - kTogether);
    int any = 0;
    for (size_t k = 0; k < kTogether; ++k) any |= at[k] == id;
    if (any) break;
  }
  while (i < n && window[n - 1 - i] != id) ++i;
  return i;
}

// Calls body(id, length) for ids that would prolong a match of at least `least` tokens of the
// window and of at most `longest`.
template <class Body>
void for_matches(const int32_t* window, size_t n, size_t longest, size_t least,
                 std::vector<uint32_t>& z, Body body) {
  if (z.size() < longest) z.resize(longest);
  const int32_t* last = window + n - 1;
  const auto back = [&](size_t i) { return *(last - i); };  // the window read backwards
  // How long it matches from i on, for later matches to look up.
  const auto keep = [&](size_t i, size_t length) {
    if (i < longest) z[i] = uint32_t(length);
  };
  size_t left = 0, right = 0;  // the match that reaches farthest
  for (size_t i = 1; i < n; ++i) {
    size_t length = 0;
    if (i < right) {
      length = std::min<size_t>(right - i, z[i - left]);
    } else {
      const size_t next = next_of(*last, window, n, i);
      if (i < longest) std::fill(&z[i], z.data() + std::min(next, longest), 0u);
      i = next;
      if (i == n) return;
    }
    if (i + length >= right) {
      while (length < longest && i + length < n && back(length) == back(i + length)) ++length;
      left = i;
      right = i + length;
    }
    keep(i, length);
    if (length >= least) body(back(i - 1), uint32_t(length));
  }
}

void ask(const Given& given, const Tokens& tokens, Scratch& scratch, Ledger& ledger) {
  const size_t first = window_start(given.value[kLastN], tokens.size);
  // No match goes farther back than what follows the last breaker.
  const size_t begin = std::max(first, tokens.unmarked);
  const size_t longest = tokens.size - begin;
  const double allowed = given.value[kAllowedLength];
  if (double(longest) < allowed) return;  // so that there is a last token
  const double limit = given.value[kBase] > 1.0
                           ? std::floor(88.7228391 / natural_log(given.value[kBase]))
                           : double(tokens.size);
  Longest lengths(scratch);
  for_matches(tokens.id + first, tokens.size - first, longest, size_t(allowed), scratch.lengths,
              [&](int32_t id, uint32_t length) { lengths.add(id, length); });
  for (const Scratch::Found& found : lengths.found()) {
    if (given.has(found.id)) continue;
    const double exponent = std::min(double(found.length) - allowed, limit);
    const double penalty =
        held(given.value[kMultiplier] * repeated_product(given.value[kBase], uint32_t(exponent)));
    ledger.add_for_now(found.id, subtract(found.id, penalty));
  }
}

}  // namespace

extern const Rule kDry;
const Rule kDry = {
    {{"dry_multiplier", "finite and >= 0", [](double v) { return v >= 0.0 && v <= DBL_MAX; }, 0.0},
     {"dry_base", "finite and >= 1", [](double v) { return v >= 1.0 && v <= DBL_MAX; }, 1.75},
     {"dry_allowed_length", "a whole number >= 1", [](double v) { return is_whole(v, 1.0); }, 2.0},
     {"dry_last_n", kLength, is_length, -1.0}},
    Rule::kIds,
    [](const Given& given) {
      return given.value[kMultiplier] == 0.0 || given.value[kLastN] == 0.0;
    },
    nullptr,
    nullptr,
    nullptr,
    -1,
    false,
    ask,
    true};

}  // namespace fastsample
