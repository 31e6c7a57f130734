// What is told of the draws of a batch, whichever Source they come from. Depends on abi/batch.h.
#pragma once

#include "abi/batch.h"
#include "details.h"

namespace fastsample {

// What is asked for of a row of a batch.
inline Details details_of(const fs_details& all, int64_t i, int64_t vocab) {
  const auto at = [i](auto* first, int64_t stride) { return first ? first + i * stride : first; };
  Details one;
  one.raw = all.logprobs == FS_LOGPROBS_RAW;
  one.logprob = at(all.logprob, 1);
  one.rank = at(all.rank, 1);
  one.at_least = at(all.at_least, 1);
  one.top = size_t(all.top_count);
  one.top_ids = at(all.top_ids, all.top_count);
  one.top_logprobs = at(all.top_logprobs, all.top_count);
  one.support = at(all.support, vocab);
  one.support_count = at(all.support_count, 1);
  one.log_mass = at(all.log_mass, 1);
  return one;
}

// As row i came.
inline Row raw_row(const fs_logits& logits, const Kernels* kernels, int64_t i, Workspace& ws) {
  return scan(kernels, RowType(logits.dtype), values_of(logits, i, ws), size_t(logits.vocab),
              ws.raw_max);
}

// Writes what is asked for of a row; false where it was bad as it came, which it is then. A Source
// has row(i, ws, block_max, patch) too: the row that is drawn from, into other memory.
template <class Source>
bool tell_of(const Source& source, const fs_details* details, int64_t i, Workspace& ws, Row& row,
             const Cut& kept, int64_t token) {
  if (!details) return true;
  const Details wanted = details_of(*details, i, source.logits->vocab);
  const bool is_raw = wanted.raw && wanted.wants_logprobs();
  const Row as_it_came =
      is_raw && (row.patch || row.lowered) ? raw_row(*source.logits, source.kernels, i, ws) : row;
  if (as_it_came.defect != Defect::kNone) {
    row = as_it_came;
    return false;
  }
  write_details(row, kept, token, as_it_came, ws, wanted);
  if (!wanted.log_mass) return true;
  const Row whole = row.lowered ? source.row(i, ws, ws.raw_max, ws.raw_patch) : row;
  *wanted.log_mass = log_mass(row, kept, whole, ws);
  return true;
}

inline void tell_nothing_of(const fs_logits& logits, const fs_details* details, int64_t i) {
  if (details) write_no_details(details_of(*details, i, logits.vocab));
}

}  // namespace fastsample
