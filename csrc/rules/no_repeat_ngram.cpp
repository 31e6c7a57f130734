// No repeated n-grams: bans what would complete one that the history has; for n = 1 all its ids.
#include "rules/rule.h"

namespace fastsample {

namespace {

void ask(const Given& given, const Tokens& tokens, Scratch&, Ledger& ledger) {
  const auto n = size_t(given.value[0]);
  if (n < 2 || tokens.size < n) return;
  // The last of n - 1 ids that an n-gram has to begin with, and those before it.
  const size_t last = tokens.size - 1, before = n - 2;
  int32_t banned = -1;
  for_places_of(tokens.id[last], tokens.id, before, last, [&](size_t i) {
    const int32_t next = tokens.id[i + 1];
    if (next == banned) return;
    if (!std::equal(tokens.id + i - before, tokens.id + i, tokens.id + last - before)) return;
    ledger.add_for_now(next, ban(next));
    banned = next;
  });
}

}  // namespace

extern const Rule kNoRepeatNgram;
const Rule kNoRepeatNgram = {{{"no_repeat_ngram_size", "a whole number >= 0",
                               [](double v) { return is_whole(v, 0.0); }, 0.0}},
                             Rule::kNone,
                             [](const Given& given) { return given.value[0] == 0.0; },
                             nullptr,
                             [](const double*, uint32_t, Edit& edit) { edit.banned = 1; },
                             [](const double* value) { return value[0] == 1.0; },
                             -1,
                             true,
                             ask};

}  // namespace fastsample
