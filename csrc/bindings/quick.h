// The low-latency path: draw(row, seed, offset) of what is held ready, as a plain C function, which
// is called in less time than one of pybind11. It returns the token, or -1 with nothing moved where
// the general path has to look at the arguments.
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

// kDraw draws of a row with a seed and an offset; it may be refused, and writes the token.
template <class Held, fs_status (*kDraw)(const Held&, const fs_logits&, uint64_t seed,
                                         uint64_t offset, int64_t* token)>
PyObject* call_draw(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (count != 3) {
    PyErr_SetString(PyExc_TypeError, "draw() takes row, seed and offset");
    return nullptr;
  }
  const auto* held = static_cast<const Held*>(PyCapsule_GetPointer(self, nullptr));
  uint64_t seed, offset;
  fs_logits logits;
  int64_t token = -1;
  // A row that fails is looked at again by the general path, which words the error.
  if (!word_of(args[1], seed) || !word_of(args[2], offset) || !as_row(args[0], logits) ||
      kDraw(*held, logits, seed, offset, &token) != FS_OK)
    token = -1;
  return PyLong_FromLongLong(token);
}

// Returns the function, which owns what is held.
template <class Held,
          fs_status (*kDraw)(const Held&, const fs_logits&, uint64_t, uint64_t, int64_t*)>
py::object make_draw(std::unique_ptr<Held> held) {
  const py::capsule owner(held.release(), [](void* p) { delete static_cast<Held*>(p); });
  static PyMethodDef method = {
      "draw", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(call_draw<Held, kDraw>)),
      METH_FASTCALL, nullptr};
  PyObject* function = PyCFunction_New(&method, owner.ptr());
  if (!function) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(function);
}

}  // namespace fastsample::bindings
