// Sequence bias: adds a number to the logit of the last id of a sequence where the ids before it
// end the history; -inf bans. All that apply add up, in the order in which they are given.
#include "rules/rule.h"

namespace fastsample {

namespace {

struct Sequence {
  const int32_t* ids;
  size_t size;
  double weight;

  // Bans of single ids need no history, and no order.
  bool is_fixed() const { return size == 1 && weight < -DBL_MAX; }
};

Sequence sequence(const Given& given, size_t i) {
  const int64_t begin = given.offsets[i];
  return {given.ids.data() + begin, size_t(given.offsets[i + 1] - begin), given.weights[i]};
}

void put(const Given& given, Ledger& ledger) {
  for (size_t i = 0; i < given.weights.size(); ++i) {
    const Sequence s = sequence(given, i);
    if (s.is_fixed()) fix(ledger, ban(*s.ids));
  }
}

void ask(const Given& given, const Tokens& tokens, Scratch&, Ledger& ledger) {
  const int32_t* end = tokens.id + tokens.size;
  for (size_t i = 0; i < given.weights.size(); ++i) {
    const Sequence s = sequence(given, i);
    const size_t begun = s.size - 1;
    if (s.is_fixed() || begun > tokens.size) continue;
    if (std::equal(s.ids, s.ids + begun, end - begun))
      ledger.add_for_now(s.ids[begun], add(s.ids[begun], s.weight));
  }
}

}  // namespace

extern const Rule kSequenceBias;
const Rule kSequenceBias = {{},
                            Rule::kSequences,
                            [](const Given& given) { return given.weights.empty(); },
                            put,
                            nullptr,
                            nullptr,
                            -1,
                            false,
                            ask};

}  // namespace fastsample
