// The primitives for avx512: CMake gives this file, and no other, that instruction set's flags.
#include "kernels.h"
#include "vec_avx512.h"

#define FASTSAMPLE_ISA avx512
#include "kernels.inl"
