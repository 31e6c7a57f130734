// The parts of the extension module, a file each.
#pragma once

#include "bindings/arrays.h"

namespace fastsample::bindings {

void define_numbers(py::module_& m);
void define_draws(py::module_& m);
void define_history(py::module_& m);
void define_plan(py::module_& m);
void define_sequence(py::module_& m);
void define_verification(py::module_& m);

}  // namespace fastsample::bindings
