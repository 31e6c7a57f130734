#include "bindings/arrays.h"

#include <atomic>
#include <new>
#include <string>

namespace fastsample::bindings {

void check(fs_status status) {
  if (status == FS_OK) return;
  const std::string message = fs_last_error();
  if (status == FS_NO_MEMORY) throw std::bad_alloc();
  throw py::value_error(message);
}

[[noreturn]] void misuse(const char* what) { throw py::type_error(what); }

// NumPy calls native order '=', but spells it out for memory of ctypes.
bool is_native(const py::dtype& dtype) {
  return dtype.byteorder() == '=' || dtype.byteorder() == (PY_LITTLE_ENDIAN ? '<' : '>');
}

// The fs_dtype of a NumPy dtype in native byte order, or -1. bfloat16 is that of ml_dtypes.
int element_type(const py::dtype& dtype) {
  using py::detail::npy_api;
  if (!is_native(dtype)) return -1;
  switch (dtype.num()) {
    case npy_api::NPY_FLOAT_: return FS_FLOAT32;
    case npy_api::NPY_DOUBLE_: return FS_FLOAT64;
    default: break;
  }
  if (dtype.itemsize() != 2) return -1;
  if (dtype.kind() == 'f') return FS_FLOAT16;
  // NumPy gives a user's type its number once; asking for its name takes a microsecond.
  static std::atomic<int> bfloat16{-1};
  if (dtype.num() == bfloat16.load(std::memory_order_relaxed)) return FS_BFLOAT16;
  constexpr int kFirstUserType = 256;
  if (dtype.num() < kFirstUserType || dtype.char_() != 'E' ||
      dtype.attr("name").cast<std::string>() != "bfloat16")
    return -1;
  bfloat16.store(dtype.num(), std::memory_order_relaxed);
  return FS_BFLOAT16;
}

fs_logits as_logits(const py::array& rows) {
  if (rows.ndim() != 2) misuse("rows must be 2-D");
  const bool bits = rows.dtype().num() == py::detail::npy_api::NPY_USHORT_;
  const int dtype = bits && is_native(rows.dtype()) ? int(FS_BFLOAT16) : element_type(rows.dtype());
  if (dtype < 0) misuse("rows have another dtype");
  const py::ssize_t item = rows.itemsize();
  if (rows.size() && rows.shape(1) > 1 && rows.strides(1) != item)
    misuse("rows are not contiguous");
  if (rows.shape(0) > 1 && rows.strides(0) % item) misuse("row stride is not a whole element");
  const py::ssize_t stride = rows.shape(0) > 1 ? rows.strides(0) / item : 0;
  return {sizeof(fs_logits), rows.data(), rows.shape(0), rows.shape(1), stride, 0, dtype, 0};
}

bool as_row(PyObject* array, fs_logits& logits) {
  using py::detail::npy_api;
  // Exactly numpy.ndarray: a subclass may mean something else by its data.
  if (Py_TYPE(array) != npy_api::get().PyArray_Type_) return false;
  const auto* proxy = py::detail::array_proxy(array);
  constexpr int kReady = npy_api::NPY_ARRAY_C_CONTIGUOUS_ | npy_api::NPY_ARRAY_ALIGNED_;
  if (proxy->nd != 1 || (proxy->flags & kReady) != kReady) return false;
  const int dtype = element_type(py::reinterpret_borrow<py::dtype>(proxy->descr));
  if (dtype < 0) return false;
  logits = {sizeof(fs_logits), proxy->data, 1, proxy->dimensions[0], 0, 0, dtype, 0};
  return true;
}

}  // namespace fastsample::bindings
