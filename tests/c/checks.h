/* Checks that are counted, and the loop over instruction sets, for the programs of this folder.
 * Valid as C99 and as C++17. */
#ifndef CHECKS_H
#define CHECKS_H

#include <fastsample.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int passed, failed;

static void check(int ok, const char* what, const char* detail, const char* file, int line) {
  if (ok) {
    ++passed;
    return;
  }
  ++failed;
  printf("FAILED %s:%d: %s%s%s (isa %s, last error \"%s\")\n", file, line, what,
         *detail ? ", got " : "", detail, fs_isa(), fs_last_error());
}

#define CHECK(condition) check((condition) != 0, #condition, "", __FILE__, __LINE__)

static inline int contains(const char* text, const char* part) {
  return strstr(text, part) != NULL;
}

/* A small generator of our own, so that every compiler and libc makes the same rows. */
static inline uint32_t next_random(uint64_t* state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(*state >> 33);
}

/* Runs the tests on each of a comma-separated list of instruction sets. */
static inline void for_isas(const char* list, void (*tests)(void)) {
  while (*list) {
    char isa[16];
    const size_t length = strcspn(list, ",");
    memcpy(isa, list, length);
    isa[length] = '\0';
    list += length + (list[length] == ',');
    CHECK(fs_force_isa(isa) == FS_OK);
    tests();
  }
}

/* What a program ends with. */
static inline int finish(void) {
  printf("%d passed, %d failed\n", passed, failed);
  return failed ? 1 : 0;
}

#endif
