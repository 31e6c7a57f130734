// Numbers of many rows, taken from Python or made for it.
#include <algorithm>

#include "bindings/module.h"

namespace fastsample::bindings {

namespace {

// One uniform of each seed, stream and offset, and of one use.
py::array_t<double> uniforms(const py::array& seeds, const py::array& streams,
                             const py::array& offsets, uint64_t use) {
  const py::ssize_t count = seeds.size();
  constexpr const char* kWhat = "seeds, streams and offsets must be uint64 of one length";
  const uint64_t* seed = as_buffer<uint64_t>(seeds, count, 'u', kWhat);
  const uint64_t* stream = as_buffer<uint64_t>(streams, count, 'u', kWhat);
  const uint64_t* offset = as_buffer<uint64_t>(offsets, count, 'u', kWhat);
  py::array_t<double> out(count);
  double* u = out.mutable_data();
  for (py::ssize_t i = 0; i < count; ++i) u[i] = fs_uniform_for(seed[i], stream[i], offset[i], use);
  return out;
}

// The items of a list or tuple of `count`, or null.
PyObject** items_of(PyObject* values, py::ssize_t count) {
  if (!PyList_CheckExact(values) && !PyTuple_CheckExact(values)) return nullptr;
  return PySequence_Fast_GET_SIZE(values) == count ? PySequence_Fast_ITEMS(values) : nullptr;
}

// The numbers of a usual array of `count`, float64 or int64, or null.
template <class T>
const T* numbers_of(PyObject* values, py::ssize_t count, int type) {
  using py::detail::npy_api;
  if (Py_TYPE(values) != npy_api::get().PyArray_Type_) return nullptr;
  const auto array = py::reinterpret_borrow<py::array>(values);
  constexpr int kReady = py::array::c_style | npy_api::NPY_ARRAY_ALIGNED_;
  if (array.ndim() != 1 || array.size() != count || (array.flags() & kReady) != kReady ||
      array.dtype().num() != type || !is_native(array.dtype()))
    return nullptr;
  return static_cast<const T*>(array.data());
}

bool number_of(PyObject* item, bool integers, double& to) {
  if (PyFloat_CheckExact(item) && !integers) {
    to = PyFloat_AS_DOUBLE(item);
    return true;
  }
  if (!PyLong_CheckExact(item)) return false;
  to = PyLong_AsDouble(item);
  if (to != -1.0 || !PyErr_Occurred()) return true;
  PyErr_Clear();
  return false;
}

// Takes the usual kinds of one number per row within bounds: Python's own in a list or tuple, or an
// array. Says whether it is that; else the general path looks at it, and words what is wrong.
bool take_numbers(const py::object& values, const py::array& out, double low, double high,
                  bool integers) {
  const py::ssize_t count = out.size();
  double* to = as_buffer<double>(out, count, 'f', "out must be float64");
  if (PyObject** item = items_of(values.ptr(), count)) {
    for (py::ssize_t i = 0; i < count; ++i)
      if (!number_of(item[i], integers, to[i])) return false;
  } else if (const int64_t* whole =
                 numbers_of<int64_t>(values.ptr(), count, py::dtype::of<int64_t>().num())) {
    std::copy(whole, whole + count, to);
  } else if (const double* real =
                 numbers_of<double>(values.ptr(), count, py::dtype::of<double>().num())) {
    if (integers) return false;
    std::copy(real, real + count, to);
  } else {
    return false;
  }
  return std::all_of(to, to + count, [&](double v) { return v >= low && v <= high; });
}

// The same of 64-bit words.
bool take_words(const py::object& values, const py::array& out) {
  const py::ssize_t count = out.size();
  uint64_t* to = as_buffer<uint64_t>(out, count, 'u', "out must be uint64");
  if (PyObject** item = items_of(values.ptr(), count)) {
    for (py::ssize_t i = 0; i < count; ++i)
      if (!word_of(item[i], to[i])) return false;
    return true;
  }
  const int64_t* whole = numbers_of<int64_t>(values.ptr(), count, py::dtype::of<int64_t>().num());
  if (!whole || std::any_of(whole, whole + count, [](int64_t v) { return v < 0; })) return false;
  std::copy(whole, whole + count, to);
  return true;
}

}  // namespace

void define_numbers(py::module_& m) {
  m.def("uniform", &fs_uniform, py::arg("seed"), py::arg("stream"), py::arg("offset"));
  m.def("uniforms", &uniforms, py::arg("seeds"), py::arg("streams"), py::arg("offsets"),
        py::arg("use") = 0);
  m.def("take_numbers", &take_numbers, py::arg("values"), py::arg("out"), py::arg("low"),
        py::arg("high"), py::arg("integers"));
  m.def("take_words", &take_words, py::arg("values"), py::arg("out"));
}

}  // namespace fastsample::bindings
