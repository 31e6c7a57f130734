/* A fuzzer as a program of its own, FUZZER [runs] [seed]: run i is what `FUZZER 1 <seed + i>` runs,
 * and an invariant that breaks says so. The fuzzer has a macro FUZZER, its name. Valid as C99. */
#ifndef SEEDED_H
#define SEEDED_H

#include <fastsample.h>
#include <stdio.h>
#include <stdlib.h>

#include "bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

static long again; /* the seed of this run */

#define HOLDS(condition)                                                            \
  do {                                                                              \
    if (!(condition)) {                                                             \
      printf(                                                                       \
          "broken invariant, line %d: %s (isa %s, last error \"%s\")\nagain with: " \
          "%s 1 %ld\n",                                                             \
          __LINE__, #condition, fs_isa(), fs_last_error(), FUZZER, again);          \
      fflush(stdout);                                                               \
      abort();                                                                      \
    }                                                                               \
  } while (0)

#ifndef FASTSAMPLE_LIBFUZZER
/* Returns how many runs there were. */
static long run_seeds(int argc, char** argv, long usual) {
  const long runs = argc > 1 ? atol(argv[1]) : usual;
  const long seed = argc > 2 ? atol(argv[2]) : 1;
  long i;
  for (i = 0; i < runs; ++i) {
    uint8_t data[512];
    again = seed + i;
    LLVMFuzzerTestOneInput(data, fill_bytes(data, sizeof data, again));
  }
  return runs;
}
#endif

#endif
