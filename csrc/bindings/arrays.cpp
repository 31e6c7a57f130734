#include "bindings/arrays.h"

#include <atomic>
#include <new>
#include <string>
#include <type_traits>

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

namespace {

// An array of so many dimensions whose memory can be read as it is, or null.
const py::detail::PyArray_Proxy* as_it_is(PyObject* array, int dimensions) {
  using py::detail::npy_api;
  // Exactly numpy.ndarray: a subclass may mean something else by its data.
  if (Py_TYPE(array) != npy_api::get().PyArray_Type_) return nullptr;
  const auto* proxy = py::detail::array_proxy(array);
  constexpr int kReady = npy_api::NPY_ARRAY_C_CONTIGUOUS_ | npy_api::NPY_ARRAY_ALIGNED_;
  return proxy->nd == dimensions && (proxy->flags & kReady) == kReady ? proxy : nullptr;
}

}  // namespace

bool as_words(PyObject* array, fs_masks& masks) {
  const auto* proxy = as_it_is(array, 1);
  if (!proxy || proxy->dimensions[0] < 1) return false;
  const auto type = py::reinterpret_borrow<py::dtype>(proxy->descr);
  const bool whole = type.kind() == 'i' || type.kind() == 'u';
  if (!whole || type.itemsize() != 4 || !is_native(type)) return false;
  masks = {sizeof masks, reinterpret_cast<const uint32_t*>(proxy->data),
           32 * int64_t(proxy->dimensions[0]), 0};
  return true;
}

bool as_int64(PyObject* array, const int64_t*& data, py::ssize_t& count) {
  const auto* proxy = as_it_is(array, 1);
  if (!proxy) return false;
  const auto type = py::reinterpret_borrow<py::dtype>(proxy->descr);
  if (type.kind() != 'i' || type.itemsize() != 8 || !is_native(type)) return false;
  data = reinterpret_cast<const int64_t*>(proxy->data);
  count = proxy->dimensions[0];
  return true;
}

bool as_row(PyObject* array, fs_logits& logits) {
  const auto* proxy = as_it_is(array, 1);
  if (!proxy) return false;
  const int dtype = element_type(py::reinterpret_borrow<py::dtype>(proxy->descr));
  if (dtype < 0) return false;
  logits = {sizeof(fs_logits), proxy->data, 1, proxy->dimensions[0], 0, 0, dtype, 0};
  return true;
}

bool as_whole(PyObject* array, fs_logits& logits) {
  const auto* proxy = as_it_is(array, 2);
  if (!proxy) return false;
  const int dtype = element_type(py::reinterpret_borrow<py::dtype>(proxy->descr));
  if (dtype < 0) return false;
  const int64_t rows = proxy->dimensions[0], vocab = proxy->dimensions[1];
  logits = {sizeof(fs_logits), proxy->data, rows, vocab, vocab, 0, dtype, 0};
  return true;
}

fs_details as_details(const py::dict& details, int logprobs, const fs_logits& logits) {
  const auto array = [&](const char* name, py::ssize_t count, char kind, auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    if (!details.contains(name)) return static_cast<T*>(nullptr);
    const auto given = details[name].cast<py::array>();
    if (!given.writeable()) misuse(name);
    return as_buffer<T>(given, count, kind, name);
  };
  const int64_t n = logits.rows;
  fs_details wanted{};
  wanted.struct_size = sizeof wanted;
  wanted.logprobs = logprobs;
  if (details.contains("top_ids") && n > 0)
    wanted.top_count = details["top_ids"].cast<py::array>().size() / n;
  wanted.logprob = array("logprob", n, 'f', wanted.logprob);
  wanted.rank = array("rank", n, 'i', wanted.rank);
  wanted.at_least = array("at_least", n, 'i', wanted.at_least);
  wanted.top_ids = array("top_ids", n * wanted.top_count, 'i', wanted.top_ids);
  wanted.top_logprobs = array("top_logprobs", n * wanted.top_count, 'f', wanted.top_logprobs);
  wanted.support = array("support", n * logits.vocab, 'i', wanted.support);
  wanted.support_count = array("support_count", n, 'i', wanted.support_count);
  wanted.log_mass = array("log_mass", n, 'f', wanted.log_mass);
  return wanted;
}

}  // namespace fastsample::bindings
