// Parameters: what is valid, and what a stage sees. No dependency but the public header.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "fastsample.h"

namespace fastsample {

constexpr uint8_t kDefaultOrder[8] = {FS_STAGE_TEMPERATURE, FS_STAGE_TOP_K, FS_STAGE_TOP_P,
                                      FS_STAGE_MIN_P};

inline bool is_active(const fs_params& p, int stage) {
  switch (stage) {
    case FS_STAGE_TEMPERATURE: return p.temperature != 1.0;
    case FS_STAGE_TOP_K: return p.top_k > 0;
    case FS_STAGE_TOP_P: return p.top_p < 1.0;
    case FS_STAGE_MIN_P: return p.min_p > 0.0;
    default: return false;
  }
}

inline const char* stage_name(int stage) {
  constexpr const char* kNames[] = {"end", "temperature", "top_k", "top_p", "min_p"};
  return kNames[stage];
}

// A number as Python's repr shows the common ones.
inline std::string show(double value) {
  if (value != value) return "nan";
  char text[32];
  for (int digits = 1; digits <= 17; ++digits) {
    std::snprintf(text, sizeof text, "%.*g", digits, value);
    if (std::strtod(text, nullptr) == value || value != value) break;
  }
  return text;
}

// What is wrong with the parameters, or an empty string.
inline std::string validate(const fs_params& p) {
  const auto must = [](const char* name, const char* requirement, const std::string& value) {
    return std::string(name) + " must be " + requirement + ", got " + value;
  };
  if (p.struct_size != sizeof(fs_params))
    return must("struct_size", "sizeof(fs_params)", std::to_string(p.struct_size));
  // Comparisons are written so that NaN fails them.
  if (!(p.temperature >= 0.0 && p.temperature <= DBL_MAX))
    return must("temperature", "finite and >= 0", show(p.temperature));
  if (p.top_k < -1) return must("top_k", "None, -1, 0 or >= 1", std::to_string(p.top_k));
  if (!(p.top_p >= 0.0 && p.top_p <= 1.0)) return must("top_p", "in [0, 1]", show(p.top_p));
  if (!(p.min_p >= 0.0 && p.min_p <= 1.0)) return must("min_p", "in [0, 1]", show(p.min_p));
  if (p.min_tokens_to_keep < 1)
    return must("min_tokens_to_keep", ">= 1", std::to_string(p.min_tokens_to_keep));

  bool named[5] = {};
  int i = 0;
  for (; i < 8 && p.order[i] != FS_STAGE_END; ++i) {
    const int stage = p.order[i];
    if (stage > FS_STAGE_MIN_P)
      return must("order", "made of fs_stage values", std::to_string(stage));
    if (named[stage])
      return std::string("order must not name a stage twice, got ") + stage_name(stage);
    named[stage] = true;
  }
  for (int stage = FS_STAGE_TEMPERATURE; stage <= FS_STAGE_MIN_P; ++stage)
    if (!named[stage] && is_active(p, stage) && p.temperature != 0.0)
      return std::string("order must name ") + stage_name(stage) + ", which is active";
  return {};
}

// log2(e) / temperature as the kernels take it: never 0, which would give masked tokens mass, and
// never infinite.
inline float exp2_scale(double temperature) {
  const double scale = 1.4426950408889634 / temperature;
  if (scale < FLT_MIN) return FLT_MIN;
  if (scale > FLT_MAX) return FLT_MAX;
  return float(scale);
}

}  // namespace fastsample
