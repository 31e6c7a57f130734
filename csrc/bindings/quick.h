// The low-latency path: draw(row, ...) of what is held ready, as a plain C function, which is
// called in less time than one of pybind11. It returns the token, or -1 with nothing moved where
// the general path has to look at the arguments: it words the error.
#pragma once

#include <memory>

#include "bindings/arrays.h"

namespace fastsample::bindings {

// Makes a call on logits, without the GIL where that takes long.
template <class Call>
fs_status released(const fs_logits& logits, const Call& call) {
  if (logits.rows * logits.vocab < kShort) return call();
  const py::gil_scoped_release release;
  return call();
}

// Returns a function of C, which owns what is held, and finds it in `self`.
template <class Held>
py::object make_function(std::unique_ptr<Held> held, PyMethodDef& method) {
  const py::capsule owner(held.release(), [](void* p) { delete static_cast<Held*>(p); });
  PyObject* function = PyCFunction_New(&method, owner.ptr());
  if (!function) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(function);
}

template <class Held>
Held& held_by(PyObject* self) {
  return *static_cast<Held*>(PyCapsule_GetPointer(self, nullptr));
}

}  // namespace fastsample::bindings
