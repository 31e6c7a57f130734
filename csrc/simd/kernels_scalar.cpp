// The primitives for scalar: CMake gives this file, and no other, that instruction set's flags.
#include "kernels.h"
#include "vec_scalar.h"

#define FASTSAMPLE_ISA scalar
#include "kernels.inl"
