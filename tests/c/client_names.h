/* Part of client.c: what the library says of itself. */
#ifndef CLIENT_NAMES_H
#define CLIENT_NAMES_H

#include <stdlib.h>

#include "client_rows.h"

static void test_version(void) { CHECK(strcmp(fs_version(), FASTSAMPLE_VERSION) == 0); }

static void test_force_isa(void) {
  const char* before = fs_isa();
  CHECK(fs_force_isa("sse9") == FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "isa must be one of "));
  CHECK(contains(fs_last_error(), fs_isas()));
  CHECK(contains(fs_last_error(), "got sse9"));
  CHECK(fs_force_isa("") == FS_INVALID_ARGUMENT);
  CHECK(fs_force_isa(fs_isas()) == (strchr(fs_isas(), ',') ? FS_INVALID_ARGUMENT : FS_OK));
  CHECK(fs_force_isa(NULL) == FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "isa must not be null"));
  CHECK(strcmp(fs_isa(), before) == 0);
  CHECK(fs_force_isa(before) == FS_OK);
  CHECK(strcmp(fs_last_error(), "") == 0);
  CHECK(strcmp(fs_isa(), before) == 0);
}

/* Printed by numpy.random.Generator(numpy.random.Philox(key=[seed, stream],
 * counter=[offset, 0, 0, 0])).random(). */
static void test_uniform(void) {
  static const struct {
    uint64_t seed, stream, offset;
    double u;
  } printed[] = {
      {0, 0, 0, 0.011546754286331562},
      {42, 7, 1000, 0.2745361602029034},
      {UINT64_MAX, 3, UINT64_MAX, 0.09996043932541354}, /* the carry goes into the next word */
  };
  size_t i;
  for (i = 0; i < sizeof printed / sizeof *printed; ++i)
    CHECK(fs_uniform(printed[i].seed, printed[i].stream, printed[i].offset) == printed[i].u);
}

static void test_version_numbers(void) {
  char text[40];
  snprintf(text, sizeof text, "%d.%d.%d", FASTSAMPLE_VERSION_MAJOR, FASTSAMPLE_VERSION_MINOR,
           FASTSAMPLE_VERSION_PATCH);
  CHECK(strcmp(text, FASTSAMPLE_VERSION) == 0);
  CHECK(FASTSAMPLE_VERSION_NUMBER == FASTSAMPLE_VERSION_MAJOR * 10000 +
                                         FASTSAMPLE_VERSION_MINOR * 100 + FASTSAMPLE_VERSION_PATCH);
#if FASTSAMPLE_VERSION_NUMBER < 200
  CHECK(!"a number that the preprocessor can compare");
#endif
}

static void test_defaults(void) {
  fs_chain chain;
  fs_stage stage;
  fs_draw draw;
  fs_logits logits;
  int kind;
  memset(&chain, kSentinel, sizeof chain);
  fs_chain_init(&chain, sizeof chain);
  CHECK(chain.struct_size == sizeof chain && !chain.stages && chain.stage_count == 0);
  CHECK(chain.min_tokens_to_keep == 1);
  memset(&draw, kSentinel, sizeof draw);
  fs_draw_init(&draw, sizeof draw);
  CHECK(draw.struct_size == sizeof draw && draw.u == 0.0 && draw.u_xtc == 0.0 && !draw.state);
  memset(&logits, kSentinel, sizeof logits);
  fs_logits_init(&logits, sizeof logits);
  CHECK(logits.struct_size == sizeof logits && !logits.data && logits.element_stride == 0);
  for (kind = 1; kind <= FS_STAGE_MIN_P; ++kind) {
    memset(&stage, kSentinel, sizeof stage);
    fs_stage_init(&stage, sizeof stage, kind);
    CHECK(stage.struct_size == sizeof stage && stage.kind == kind && stage.joint == 0);
    CHECK(stage.reserved == 0 && stage.value[3] == 0.0);
    CHECK(stage.value[0] == (kind == FS_STAGE_TEMPERATURE || kind == FS_STAGE_TOP_P ? 1.0 : 0.0));
  }
  fs_chain_init(NULL, sizeof chain);
  fs_stage_init(NULL, sizeof stage, 1);
  fs_draw_init(NULL, sizeof draw);
  fs_logits_init(NULL, sizeof logits);
}

/* Whatever size a caller's structs have, an init fills that and no more. */
static void test_init_sizes(void) {
  unsigned char bytes[128];
  uint64_t size, i;
  for (size = 0; size <= 120; size += 4) {
    int which;
    for (which = 0; which < 4; ++which) {
      memset(bytes, kSentinel, sizeof bytes);
      if (which == 0) fs_chain_init((fs_chain*)(void*)bytes, size);
      if (which == 1) fs_stage_init((fs_stage*)(void*)bytes, size, FS_STAGE_TOP_P);
      if (which == 2) fs_draw_init((fs_draw*)(void*)bytes, size);
      if (which == 3) fs_logits_init((fs_logits*)(void*)bytes, size);
      for (i = size; i < sizeof bytes; ++i) CHECK(bytes[i] == kSentinel);
      for (i = 56; i < size; ++i) CHECK(bytes[i] == 0);
      if (size >= 4) CHECK(bytes[0] == size);
    }
  }
}

static void test_names(void) {
  static const char* const names[] = {"temperature", "top_k",          "top_p",      "min_p",
                                      "typical_p",   "epsilon_cutoff", "eta_cutoff", "top_a",
                                      "p_less",      "top_n_sigma",    "top_h",      "xtc",
                                      "mirostat",    "adaptive",       "p_less_norm"};
  int kind;
  for (kind = 1; kind <= 15; ++kind) {
    CHECK(strcmp(fs_stage_name(kind), names[kind - 1]) == 0);
    CHECK(fs_stage_kind_of(names[kind - 1]) == kind);
  }
  CHECK(!fs_stage_name(0) && !fs_stage_name(16) && !fs_stage_name(-1));
  CHECK(!fs_stage_kind_of("top-k") && !fs_stage_kind_of("") && !fs_stage_kind_of(NULL));
}

static void test_orders(void) {
  static const int hf[] = {FS_STAGE_TEMPERATURE, FS_STAGE_TOP_K, FS_STAGE_TOP_P, FS_STAGE_MIN_P};
  static const int llama[] = {FS_STAGE_TOP_K, FS_STAGE_TOP_P, FS_STAGE_MIN_P, FS_STAGE_TEMPERATURE};
  static const float x[] = {3.0f, 2.5f, 2.0f, 1.0f};
  char names[200];
  char* name;
  fs_stage stages[16], untouched[16];
  int order, i;
  for (order = 0; order < 2; ++order) {
    const int* expected = order ? llama : hf;
    const int64_t count = fs_order_init(order ? "llama.cpp" : "hf", stages, sizeof *stages, 16);
    int found = 0;
    for (i = 0; i < (int)count; ++i)
      if (found < 4 && stages[i].kind == expected[found]) ++found;
    CHECK(count >= 4 && found == 4);
  }
  CHECK(fs_order_init("hf", NULL, sizeof *stages, 0) >= 4);
  CHECK(fs_order_init("HF", stages, sizeof *stages, 16) == -1);
  CHECK(fs_order_init(NULL, stages, sizeof *stages, 16) == -1);
  memset(stages, kSentinel, sizeof stages);
  memset(untouched, kSentinel, sizeof untouched);
  CHECK(fs_order_init("hf", stages, sizeof *stages, 3) >= 4);
  CHECK(memcmp(stages, untouched, sizeof stages) == 0);

  /* Every order is a valid chain that does nothing, and takes numbers. */
  strcpy(names, fs_orders());
  for (name = strtok(names, ","); name; name = strtok(NULL, ",")) {
    const fs_logits logits = rows_of(x, 1, 4, 4, FS_FLOAT32);
    fs_chain chain;
    int64_t ids[4], count = 0;
    float p[4];
    fs_chain_init(&chain, sizeof chain);
    chain.stages = stages;
    chain.stage_count = fs_order_init(name, stages, sizeof *stages, 16);
    CHECK(chain.stage_count >= 3);
    CHECK(fs_survivors(&logits, &chain, NULL, 4, ids, p, &count) == FS_OK && count == 4);
    fs_find_stage(stages, chain.stage_count, FS_STAGE_TOP_K)->value[0] = 3;
    CHECK(fs_survivors(&logits, &chain, NULL, 4, ids, p, &count) == FS_OK && count == 3);
    CHECK(!fs_find_stage(stages, chain.stage_count, 99));
  }
  CHECK(!fs_find_stage(NULL, 2, FS_STAGE_TOP_K));
}

#endif
