// Which instruction set runs.
#pragma once

#include <string>

#include "kernels.h"

namespace fastsample {

// The kernels in use; null when FASTSAMPLE_ISA asks for what cannot run, see isa_error().
const Kernels* active_kernels();

// Comma-separated names of what this machine can run, best first.
const char* supported_isas();

// Switches all threads to `name`; returns what is wrong, or an empty string.
std::string force_isa(const char* name);

std::string isa_error();

}  // namespace fastsample
