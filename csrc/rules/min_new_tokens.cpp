// Minimum of new tokens: bans the ids that end a text while fewer follow the prompt.
#include "rules/rule.h"

namespace fastsample {

namespace {

void ask(const Given& given, const Tokens& tokens, Scratch&, Ledger& ledger) {
  if (double(tokens.size - tokens.prompt) >= given.value[0]) return;
  for (const int32_t id : given.ids) ledger.add_for_now(id, ban(id));
}

}  // namespace

extern const Rule kMinNewTokens;
const Rule kMinNewTokens = {
    {{"min_new_tokens", "a whole number >= 0", [](double v) { return is_whole(v, 0.0); }, 0.0}},
    Rule::kIds,
    [](const Given& given) { return given.value[0] == 0.0 || given.ids.empty(); },
    nullptr,
    nullptr,
    nullptr,
    -1,
    false,
    ask};

}  // namespace fastsample
