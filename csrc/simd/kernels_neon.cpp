// The primitives for neon: CMake gives this file, and no other, that instruction set's flags.
#include "kernels.h"
#include "vec_neon.h"

#define FASTSAMPLE_ISA neon
#include "kernels.inl"
