// The table of all rules: a row gives a kind its name and its file.
#pragma once

#include "rules/rule.h"

namespace fastsample {

struct RuleRow {
  int32_t kind;  // the fs_rule_kind
  const char* name;
  const Rule* rule;
};

// The row of a kind, or null.
const RuleRow* rule_of_kind(int32_t kind);
const RuleRow* rule_of_name(const char* name);

}  // namespace fastsample
