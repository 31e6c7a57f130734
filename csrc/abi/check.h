// What a caller hands over, checked before anything is done with it.
#pragma once

#include <string>

#include "fastsample.h"

namespace fastsample {

// Each returns what is wrong, or an empty string.
std::string check_logits(const fs_logits* logits);
std::string in_row(const std::string& error, int64_t i);
std::string check_chains(const fs_chain* chains, int64_t count, int64_t rows);
// `drawing` is whether a token is drawn, with u.
std::string check_draws(const fs_draw* draws, int64_t rows, int64_t vocab, bool drawing);
// `stateful` is the stage that it is of, or null.
std::string check_state(const double* state, const fs_stage* stateful);
// Those of draws that were checked, which chains that were checked are for.
std::string check_states(const fs_draw* draws, int64_t rows, const fs_chain* chains, int64_t count);
std::string check_details(const fs_details* details, int64_t vocab);

std::string check_rules(const fs_rule* rules, int64_t count);
std::string check_call(int32_t threads, uint32_t flags);

// Bytes of an element of a valid dtype.
inline int64_t element_size(int32_t dtype) {
  constexpr int64_t kSize[] = {4, 2, 2, 8};
  return kSize[dtype];
}

}  // namespace fastsample
