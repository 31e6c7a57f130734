// What stages that drop the largest values have in common.
#include <algorithm>

#include "stages/stage.h"

namespace fastsample {

// All weights change with the maximum: what was summed is void.
void drop_above(Cutting& cutting, Ceiling ceiling) {
  cutting.kept.scale = 0.0f;
  if (cutting.kept.listed) {
    cutting.list().cut_above(ceiling);
    cutting.row.take_maxima(cutting.list().x, cutting.list().ids, cutting.list().size);
  } else {
    cutting.row.cut_above(ceiling, cutting.workspace.patch);
  }
}

}  // namespace fastsample
