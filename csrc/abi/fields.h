// Fields that several structs have, their size and their numbers: checked, and filled.
#pragma once

#include <algorithm>
#include <cstring>

#include "abi/words.h"
#include "chain.h"
#include "number.h"

namespace fastsample {

// A struct that is only written to says by its size how much of it there is.
template <class T>
std::string check_room(const char* name, const T& value) {
  constexpr uint64_t kLargest = 4096;
  const uint64_t size = value.struct_size;
  if (size >= sizeof(T) && size <= kLargest && size % alignof(T) == 0) return {};
  return must(
      std::string(name) + ".struct_size",
      "sizeof(fs_" + std::string(name) + "), which is " + std::to_string(sizeof(T)) + " here",
      std::to_string(size));
}

// A struct may be larger than ours where it says nothing by that. The next version that appends
// fields has to take the sizes of this one too, with what the new fields are when they are 0.
template <class T>
std::string check_size(const char* name, const T& value) {
  const std::string wrong = check_room(name, value);
  if (!wrong.empty()) return wrong;
  const uint64_t size = value.struct_size;
  const char* bytes = reinterpret_cast<const char*>(&value);
  for (uint64_t i = sizeof(T); i < size; ++i)
    if (bytes[i] != 0)
      return std::string(name) + " must be 0 beyond byte " + std::to_string(sizeof(T)) +
             ", of which this version knows nothing";
  return {};
}

// The elements of an array are as large as the first.
template <class T>
std::string check_size(const char* name, const T* first, int64_t i) {
  const T& value = element_at(first, i);
  if (value.struct_size != first->struct_size)
    return must(std::string(name) + ".struct_size", "the same in a whole array",
                std::to_string(value.struct_size));
  return check_size(name, value);
}

// Copies as much of `value` as the caller has room for.
template <class T>
void fill(void* to, uint64_t size, T value) {
  if (!to || !size) return;
  value.struct_size = decltype(value.struct_size)(size);
  std::memset(to, 0, size_t(size));
  std::memcpy(to, &value, size_t(std::min<uint64_t>(size, sizeof value)));
}

inline std::string check_numbers(const char* of, const Number* numbers, const double* value) {
  for (int i = 0; i < 4; ++i) {
    const Number& number = numbers[i];
    if (number.name ? !number.valid(value[i]) : value[i] != 0.0)
      return number.name
                 ? must(number.name, number.requirement, value[i])
                 : must(std::string(of) + ".value[" + std::to_string(i) + "]", "0", value[i]);
  }
  return {};
}

}  // namespace fastsample
