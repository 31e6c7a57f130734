/* A program of version 0.1, whose header lies beside it, as it was built then: its structs are
 * smaller than those of later versions, and it lets the library fill them. Prints "intact" where
 * nothing around its parameters was overwritten. */
#include <stdio.h>
#include <string.h>

#include "fastsample.h"

int main(void) {
  static const float row[] = {3.0f, 2.5f, 2.0f, 1.0f};
  const fs_logits logits = {sizeof logits, row, 1, 4, 4, FS_FLOAT32, 0};
  const double u = 0.5;
  int64_t token = -1;
  struct {
    fs_params params;
    unsigned char around[256];
  } frame;
  size_t i;
  memset(&frame, 0x5a, sizeof frame);
  fs_params_init(&frame.params);
  for (i = 0; i < sizeof frame.around; ++i)
    if (frame.around[i] != 0x5a) return 2;
  puts("intact");
  printf("token %d\n",
         fs_sample(&logits, &frame.params, 1, &u, 1, 0, &token) == FS_OK ? (int)token : -2);
  return 0;
}
