#include "rules/table.h"

#include <cstring>

namespace fastsample {

extern const Rule kBias, kSequenceBias, kRepetition, kFrequency, kPresence, kDry, kNoRepeatNgram,
    kMinNewTokens, kAllowedIds;

namespace {

// In the order in which biases, and what is subtracted, are added up.
constexpr RuleRow kTable[] = {
    {FS_RULE_BIAS, "bias", &kBias},
    {FS_RULE_SEQUENCE_BIAS, "sequence_bias", &kSequenceBias},
    {FS_RULE_REPETITION, "repetition", &kRepetition},
    {FS_RULE_FREQUENCY, "frequency", &kFrequency},
    {FS_RULE_PRESENCE, "presence", &kPresence},
    {FS_RULE_DRY, "dry", &kDry},
    {FS_RULE_NO_REPEAT_NGRAM, "no_repeat_ngram", &kNoRepeatNgram},
    {FS_RULE_MIN_NEW_TOKENS, "min_new_tokens", &kMinNewTokens},
    {FS_RULE_ALLOWED_IDS, "allowed_ids", &kAllowedIds},
};
constexpr int32_t kKinds = sizeof kTable / sizeof *kTable;
static_assert(kTable[kKinds - 1].kind == kKinds, "row i is that of kind i + 1");

}  // namespace

const RuleRow* rule_of_kind(int32_t kind) {
  return kind >= 1 && kind <= kKinds ? &kTable[kind - 1] : nullptr;
}

const RuleRow* rule_of_name(const char* name) {
  for (const RuleRow& row : kTable)
    if (std::strcmp(row.name, name) == 0) return &row;
  return nullptr;
}

}  // namespace fastsample
