/* Sees the guest's one header, and draws with it. */
#include <fastsample.h>
#include <stdio.h>

#if __has_include("draw.h") || __has_include("simd/kernels.h")
#error "the guest's own headers are in the host's way"
#endif

int main() {
  const float row[] = {3.0f, 2.5f, 2.0f, 1.0f};
  const fs_logits logits = {sizeof logits, row, 1, 4, 4, FS_FLOAT32, 0};
  const double u = 0.6;
  fs_params params;
  int64_t token = -1;
  fs_params_init(&params);
  if (fs_sample(&logits, &params, 1, &u, 1, 0, &token) != FS_OK || token != 1) {
    printf("got %d %s\n", int(token), fs_last_error());
    return 1;
  }
  printf("1 passed, 0 failed\n");
  return 0;
}
