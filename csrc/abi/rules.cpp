// The C ABI of rules: defaults, names, and what a caller hands over.
#include <cfloat>

#include "abi/check.h"
#include "abi/fields.h"
#include "rules/table.h"

namespace fastsample {

namespace {

std::string check_lists(const RuleRow& row, const fs_rule& rule) {
  const std::string name = row.name;
  const Rule::Lists lists = row.rule->lists;
  const bool sequences = lists == Rule::kSequences;
  const bool weighted = sequences || lists == Rule::kWeighted;
  if (rule.count < 0) return must(name + ".count", ">= 0", rule.count);
  if (lists == Rule::kNone && rule.count) return must(name + ".count", "0", rule.count);
  const struct {
    const char* field;
    bool there, needed;
  } pointers[] = {{".ids", rule.ids != nullptr, lists != Rule::kNone},
                  {".offsets", rule.offsets != nullptr, sequences},
                  {".weights", rule.weights != nullptr, weighted}};
  for (const auto& pointer : pointers) {
    if (pointer.there && !pointer.needed) return name + pointer.field + " must be null";
    if (!pointer.there && pointer.needed && rule.count)
      return name + pointer.field + " must not be null";
  }
  for (int64_t i = 0; sequences && rule.count && i < rule.count; ++i)
    if ((i == 0 && rule.offsets[0] != 0) || rule.offsets[i + 1] <= rule.offsets[i])
      return must(name + ".offsets", "rising from 0", rule.offsets[i ? i + 1 : 0]);
  const int64_t ids = sequences && rule.count ? rule.offsets[rule.count] : rule.count;
  for (int64_t i = 0; i < ids; ++i)
    if (rule.ids[i] < 0) return must(name + ".ids", ">= 0", int64_t(rule.ids[i]));
  for (int64_t i = 0; weighted && i < rule.count; ++i)
    if (!(rule.weights[i] <= DBL_MAX))
      return must(name + ".weights", "finite or -inf", rule.weights[i]);
  return {};
}

std::string check_rule(const fs_rule* rules, int64_t i, uint32_t& seen) {
  std::string error = check_size("rule", rules, i);
  if (!error.empty()) return error;
  const fs_rule& rule = element_at(rules, i);
  const RuleRow* row = rule_of_kind(rule.kind);
  if (!row) return must("rule.kind", "an fs_rule_kind", int64_t(rule.kind));
  if (rule.reserved != 0) return must("rule.reserved", "0", int64_t(rule.reserved));
  const Rule::Lists lists = row->rule->lists;
  const bool adds_up = lists == Rule::kWeighted || lists == Rule::kSequences;
  if (!adds_up && seen >> rule.kind & 1)
    return std::string("rules must not name a rule twice, got ") + row->name;
  seen |= uint32_t(1) << rule.kind;
  error = check_numbers(row->name, row->rule->numbers, rule.value);
  return error.empty() ? check_lists(*row, rule) : error;
}

}  // namespace

std::string check_rules(const fs_rule* rules, int64_t count) {
  if (count < 0) return must("rule_count", ">= 0", count);
  if (count > 0 && !rules) return "rules must not be null";
  uint32_t seen = 0;
  for (int64_t i = 0; i < count; ++i) {
    const std::string error = check_rule(rules, i, seen);
    if (!error.empty()) return error;
  }
  return {};
}

}  // namespace fastsample

using namespace fastsample;

void fs_rule_init(fs_rule* rule, uint64_t size, int32_t kind) {
  fs_rule value{};
  value.kind = kind;
  const RuleRow* row = rule_of_kind(kind);
  for (int i = 0; row && i < 4; ++i) value.value[i] = row->rule->numbers[i].off;
  fill(rule, size, value);
}

const char* fs_rule_name(int32_t kind) {
  const RuleRow* row = rule_of_kind(kind);
  return row ? row->name : nullptr;
}

int32_t fs_rule_kind_of(const char* name) {
  const RuleRow* row = name ? rule_of_name(name) : nullptr;
  return row ? row->kind : 0;
}
