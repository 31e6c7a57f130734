// The low-latency paths: draws from what is held ready, and verification, as plain C functions,
// which are called in less time than those of pybind11. Where the general path has to look at the
// arguments, they say so with nothing moved: it words the error.
#pragma once

#include <atomic>
#include <memory>
#include <new>

#include "bindings/arrays.h"
#include "bindings/sequence.h"

namespace fastsample::bindings {

using QuickFunction = PyObject* (*)(PyObject* self, PyObject* const* args, Py_ssize_t count);

// Makes a call on logits, without the GIL where that takes long.
template <class Call>
fs_status released(const fs_logits& logits, const Call& call) {
  if (logits.rows * logits.vocab < kShort) return call();
  const py::gil_scoped_release release;
  return call();
}

// Runs the body of a plain C function, out of which no exception may come: Python's own frames lie
// above it.
template <class Body>
PyObject* without_exceptions(const Body& body) {
  try {
    return body();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

inline PyObject* refuse_count(const char* what) {
  PyErr_SetString(PyExc_TypeError, what);
  return nullptr;
}

template <QuickFunction kFunction>
PyMethodDef& method_of(const char* name) {
  static PyMethodDef method = {name,
                               reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(kFunction)),
                               METH_FASTCALL, nullptr};
  return method;
}

// A function of C with this `self`, which it keeps alive.
inline py::object make_function(PyMethodDef& method, const py::object& self) {
  PyObject* function = PyCFunction_New(&method, self.ptr());
  if (!function) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(function);
}

// What functions find in their `self`, which owns it.
template <class Held>
py::capsule owner_of(std::unique_ptr<Held> held) {
  return py::capsule(held.release(), [](void* p) { delete static_cast<Held*>(p); });
}

template <class Held>
Held& held_by(PyObject* self) {
  return *static_cast<Held*>(PyCapsule_GetPointer(self, nullptr));
}

// What a Sequence and its functions share.
struct HeldSequence {
  Sampler sampler;
  std::atomic<bool> ready{true};  // whether the seed and the offset of the next draw are known here
  std::atomic<bool> keeps{true};  // whether anybody asks for the tokens
  std::atomic<int64_t> unasked{0};

  // Tokens that nobody asks for are dropped now and then.
  void drew() {
    constexpr int64_t kMost = 4096;
    if (keeps || ++unasked < kMost) return;
    fs_sampler_start(sampler.get(), nullptr, 0, 0);
    unasked = 0;
  }
};

// draw(row) and draw(row, allowed), with a mask of words, give the token or -1.
PyObject* draw_quickly(PyObject* self, PyObject* const* args, Py_ssize_t count);
// tell(row, logprobs, top_logprobs, support, log_mass) gives what a Draw has, or None.
PyObject* tell_quickly(PyObject* self, PyObject* const* args, Py_ssize_t count);

}  // namespace fastsample::bindings
