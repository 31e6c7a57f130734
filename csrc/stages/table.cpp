#include "stages/table.h"

#include <cstring>

namespace fastsample {

extern const Stage kTemperature, kTopK, kTopP, kMinP, kTypicalP, kEpsilonCutoff, kEtaCutoff, kTopA,
    kPLess, kTopNSigma, kTopH, kXtc, kMirostat, kAdaptive, kPLessNorm;

namespace {

constexpr TableRow kTable[] = {
    {FS_STAGE_TEMPERATURE, "temperature", &kTemperature},
    {FS_STAGE_TOP_K, "top_k", &kTopK},
    {FS_STAGE_TOP_P, "top_p", &kTopP},
    {FS_STAGE_MIN_P, "min_p", &kMinP},
    {FS_STAGE_TYPICAL_P, "typical_p", &kTypicalP},
    {FS_STAGE_EPSILON_CUTOFF, "epsilon_cutoff", &kEpsilonCutoff},
    {FS_STAGE_ETA_CUTOFF, "eta_cutoff", &kEtaCutoff},
    {FS_STAGE_TOP_A, "top_a", &kTopA},
    {FS_STAGE_P_LESS, "p_less", &kPLess},
    {FS_STAGE_TOP_N_SIGMA, "top_n_sigma", &kTopNSigma},
    {FS_STAGE_TOP_H, "top_h", &kTopH},
    {FS_STAGE_XTC, "xtc", &kXtc},
    {FS_STAGE_MIROSTAT, "mirostat", &kMirostat},
    {FS_STAGE_ADAPTIVE, "adaptive", &kAdaptive},
    {FS_STAGE_P_LESS_NORM, "p_less_norm", &kPLessNorm},
};
constexpr int32_t kKinds = sizeof kTable / sizeof *kTable;
static_assert(kTable[kKinds - 1].kind == kKinds, "row i is that of kind i + 1");

}  // namespace

const TableRow* row_of_kind(int32_t kind) {
  return kind >= 1 && kind <= kKinds ? &kTable[kind - 1] : nullptr;
}

const TableRow* row_of_name(const char* name) {
  for (const TableRow& row : kTable)
    if (std::strcmp(row.name, name) == 0) return &row;
  return nullptr;
}

}  // namespace fastsample
