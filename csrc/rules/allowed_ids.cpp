// Allowed ids: all others are banned. The only rule that is a mask and no edits; whoever draws
// takes the mask from its ids.
#include "rules/rule.h"

namespace fastsample {

extern const Rule kAllowedIds;
const Rule kAllowedIds = {{}, Rule::kIds, [](const Given&) { return true; }};

}  // namespace fastsample
