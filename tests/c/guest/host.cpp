/* Sees the guest's one header, and draws with it. */
#include <fastsample.h>
#include <stdio.h>

#if __has_include("draw.h") || __has_include("simd/kernels.h")
#error "the guest's own headers are in the host's way"
#endif

int main() {
  const float row[] = {3.0f, 2.5f, 2.0f, 1.0f};
  const fs_logits logits = {sizeof logits, row, 1, 4, 4, 0, FS_FLOAT32, 0};
  const fs_draw draw = {sizeof draw, 0.6, 0, nullptr, nullptr, 0, nullptr, 0, nullptr};
  fs_chain chain;
  int64_t token = -1;
  fs_chain_init(&chain, sizeof chain);
  if (fs_sample(&logits, &chain, 1, &draw, 1, 0, &token) != FS_OK || token != 1) {
    printf("got %d %s\n", int(token), fs_last_error());
    return 1;
  }
  printf("1 passed, 0 failed\n");
  return 0;
}
