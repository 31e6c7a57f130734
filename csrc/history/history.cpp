#include "history/history.h"

#include <utility>

#include "chain.h"

namespace fastsample {

namespace {

Given given_of(const fs_rule& from, const Rule& rule) {
  Given given{};
  std::copy_n(from.value, 4, given.value);
  if (from.count == 0 || rule.lists == Rule::kNone) return given;
  const bool sequences = rule.lists == Rule::kSequences;
  given.ids.assign(from.ids, from.ids + (sequences ? from.offsets[from.count] : from.count));
  if (sequences) given.offsets.assign(from.offsets, from.offsets + from.count + 1);
  if (from.weights) given.weights.assign(from.weights, from.weights + from.count);
  if (rule.marks) {
    given.sorted = given.ids;
    std::sort(given.sorted.begin(), given.sorted.end());
  }
  return given;
}

// Room for one more, in steps that grow.
template <class T>
void reserve_one(std::vector<T>& values) {
  if (values.size() == values.capacity()) values.reserve(2 * values.size() + 16);
}

}  // namespace

History::History(const fs_rule* rules, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const fs_rule& from = element_at(rules, i);
    const Rule& rule = *rule_of_kind(from.kind)->rule;
    Acting acting{from.kind, &rule, given_of(from, rule)};
    if (!rule.is_off(acting.given)) acting_.push_back(std::move(acting));
  }
  // In the order in which sums are made, whatever that of the rules.
  std::stable_sort(acting_.begin(), acting_.end(),
                   [](const Acting& a, const Acting& b) { return a.kind < b.kind; });
  for (Acting& acting : acting_) {
    const Rule& rule = *acting.rule;
    if (rule.count && (!rule.counts || rule.counts(acting.given.value)))
      acting.counter = counters_++;
    if (rule.lists == Rule::kWeighted)
      for (const int32_t id : acting.given.ids) largest_biased_ = std::max(largest_biased_, id);
  }
  start(nullptr, 0, 0);
}

void History::start(const int32_t* ids, size_t count, size_t prompt) {
  settle();
  Past before = std::move(past_);
  try {
    past_ = {};
    past_.ids.reserve(count + count / 4);
    past_.marked.resize(acting_.size());
    for (const Acting& acting : acting_)
      if (acting.rule->fix) acting.rule->fix(acting.given, past_.ledger);
    past_.prompt = prompt;
    for (size_t i = 0; i < count; ++i) {
      mark(ids[i]);
      past_.ids.push_back(ids[i]);
      this->count(ids[i], counters_of(i, count), 1);
    }
  } catch (...) {
    past_ = std::move(before);
    throw;
  }
}

void History::push(const int32_t* ids, size_t count) {
  settle();
  const size_t size = past_.ids.size();
  try {
    for (size_t i = 0; i < count; ++i) push_one(ids[i]);
  } catch (...) {
    while (past_.ids.size() > size) pop_one();  // to what there was room for before
    throw;
  }
}

void History::pop(size_t count) {
  settle();
  const std::vector<int32_t> tail(past_.ids.end() - ptrdiff_t(count), past_.ids.end());
  const size_t prompt = past_.prompt, size = past_.ids.size();
  try {
    for (size_t i = 0; i < count; ++i) pop_one();
  } catch (...) {
    while (past_.ids.size() < size) {
      past_.prompt = std::min(prompt, past_.ids.size() + 1);
      push_one(tail[count - (size - past_.ids.size())]);
    }
    throw;
  }
}

void History::reserve(size_t vocab) {
  settle();
  reserve_one(past_.ids);
  for (size_t i = 0; i < acting_.size(); ++i)
    if (acting_[i].rule->marks) reserve_one(past_.marked[i]);
  if (counters_) past_.ledger.reserve(std::min(vocab, size_t(FS_MAX_VOCAB)), 1);
}

// The edits without what is asked of the last token, so that the history can change.
void History::settle() {
  if (!asked_) return;
  past_.ledger.undo();
  asked_ = false;
}

EditTable History::edits() {
  if (asked_) return past_.ledger.table();
  asked_ = true;
  try {
    for (size_t i = 0; i < acting_.size(); ++i) {
      if (!acting_[i].rule->ask) continue;
      const std::vector<size_t>& marked = past_.marked[i];
      const Tokens tokens{past_.ids.data(), past_.ids.size(), past_.prompt,
                          marked.empty() ? 0 : marked.back() + 1};
      acting_[i].rule->ask(acting_[i].given, tokens, scratch_, past_.ledger);
    }
  } catch (...) {
    settle();
    throw;
  }
  return past_.ledger.table();
}

// The next token is one that a rule marks.
void History::mark(int32_t id) {
  for (size_t i = 0; i < acting_.size(); ++i)
    if (acting_[i].rule->marks && acting_[i].given.has(id))
      past_.marked[i].push_back(past_.ids.size());
}

// The counters whose window has this place, when the history is so long.
unsigned History::counters_of(size_t place, size_t size) const {
  unsigned counters = 0;
  for (const Acting& acting : acting_)
    if (acting.counter >= 0 && place >= acting.start(size) &&
        (acting.rule->prompt || place >= past_.prompt))
      counters |= 1u << acting.counter;
  return counters;
}

// An id stands once more, or once less, in the windows of these counters.
void History::count(int32_t id, unsigned counters, int step) {
  if (!counters || !Ledger::holds(id)) return;
  Ledger& ledger = past_.ledger;
  const Ledger::Place place = ledger.touch(id);
  Ledger::Tally& tally = ledger.tally(place);
  Edit edit{id, tally.fixed_ban, 1.0, 0.0, ledger.edit(place).bias};
  bool any = tally.fixed;
  for (const Acting& acting : acting_) {
    if (acting.counter < 0) continue;
    uint32_t& times = tally.count[acting.counter];
    if (counters >> acting.counter & 1) times += uint32_t(step);
    if (!times) continue;
    any = true;
    acting.rule->count(acting.given.value, times, edit);
  }
  ledger.set(place, edit);
  if (!any) ledger.remove(place);
}

// Calls body(id, counters) for what leaves the windows when the history becomes so long, and comes
// back when it no longer is.
template <class Body>
void History::for_leaving(size_t size, Body body) const {
  size_t last = 0;
  unsigned counters = 0;
  for (const Acting& acting : acting_) {
    if (acting.counter < 0) continue;
    const size_t start = acting.start(size);
    if (start == 0 || (!acting.rule->prompt && start <= past_.prompt)) continue;
    if (counters && start != last) {
      body(past_.ids[last - 1], counters);
      counters = 0;
    }
    last = start;
    counters |= 1u << acting.counter;
  }
  if (counters) body(past_.ids[last - 1], counters);
}

void History::push_one(int32_t id) {
  reserve(Ledger::holds(id) ? size_t(id) + 1 : 0);  // after which nothing fails
  mark(id);
  past_.ids.push_back(id);
  const size_t size = past_.ids.size();
  count(id, counters_of(size - 1, size), 1);
  for_leaving(size, [&](int32_t gone, unsigned counters) { count(gone, counters, -1); });
}

void History::pop_one() {
  const size_t size = past_.ids.size();
  size_t ids = 0;
  for_leaving(size, [&](int32_t back, unsigned) {
    if (Ledger::holds(back)) ids = std::max(ids, size_t(back) + 1);
  });
  if (ids) past_.ledger.reserve(ids, size_t(counters_));  // after which nothing fails
  for_leaving(size, [&](int32_t back, unsigned counters) { count(back, counters, 1); });
  count(past_.ids.back(), counters_of(size - 1, size), -1);
  past_.ids.pop_back();
  past_.prompt = std::min(past_.prompt, size - 1);
  for (std::vector<size_t>& marked : past_.marked)
    while (!marked.empty() && marked.back() >= size - 1) marked.pop_back();
}

}  // namespace fastsample
