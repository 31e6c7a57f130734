// The primitives for avx2: CMake gives this file, and no other, that instruction set's flags.
#include "kernels.h"
#include "vec_avx2.h"

#define FASTSAMPLE_ISA avx2
#include "kernels.inl"
