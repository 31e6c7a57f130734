// The table of all stages: a row gives a kind its name and its file.
#pragma once

#include "stages/stage.h"

namespace fastsample {

struct TableRow {
  int32_t kind;  // the fs_stage_kind
  const char* name;
  const Stage* stage;  // null where the library does not have it yet
};

// The row of a kind, or null.
const TableRow* row_of_kind(int32_t kind);
const TableRow* row_of_name(const char* name);

// The stage of a kind that has one.
inline const Stage& stage_of(int32_t kind) { return *row_of_kind(kind)->stage; }

}  // namespace fastsample
