// Bias: adds a number to the logits of single ids, whatever the history; -inf bans.
#include "rules/rule.h"

namespace fastsample {

namespace {

void put(const Given& given, Ledger& ledger) {
  for (size_t i = 0; i < given.ids.size(); ++i) fix(ledger, add(given.ids[i], given.weights[i]));
}

}  // namespace

extern const Rule kBias;
const Rule kBias = {{}, Rule::kWeighted, [](const Given& given) { return given.ids.empty(); }, put};

}  // namespace fastsample
