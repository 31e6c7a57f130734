// How messages are worded: "name must be requirement, got value".
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace fastsample {

// A number as Python's repr shows the common ones.
inline std::string show(double value) {
  if (value != value) return "nan";
  char text[32];
  if (value > -1e15 && value < 1e15 && value == double(int64_t(value))) {
    std::snprintf(text, sizeof text, "%.0f", value);
    return text;
  }
  for (int digits = 1; digits <= 17; ++digits) {
    std::snprintf(text, sizeof text, "%.*g", digits, value);
    if (std::strtod(text, nullptr) == value) break;
  }
  return text;
}

inline std::string must(const std::string& name, const std::string& requirement,
                        const std::string& value) {
  return name + " must be " + requirement + ", got " + value;
}

inline std::string must(const std::string& name, const std::string& requirement, int64_t value) {
  return must(name, requirement, std::to_string(value));
}

inline std::string must(const std::string& name, const std::string& requirement, double value) {
  return must(name, requirement, show(value));
}

}  // namespace fastsample
