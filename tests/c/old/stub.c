/* Stands for the library of 0.1 where the old program is linked. */
#include "fastsample.h"

void fs_params_init(fs_params* params) { (void)params; }
fs_status fs_sample(const fs_logits* logits, const fs_params* params, int64_t params_count,
                    const double* u, int32_t threads, uint32_t flags, int64_t* tokens) {
  (void)logits, (void)params, (void)params_count, (void)u, (void)threads, (void)flags;
  (void)tokens;
  return FS_OK;
}
