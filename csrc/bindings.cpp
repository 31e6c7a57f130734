// The extension module `_core`: an ordinary client of fastsample.h. Validation and documentation
// are in Python; here arguments are only prevented from crashing.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "fastsample.h"

namespace py = pybind11;

namespace {

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

// A (B, V) array of one of the four element types; bfloat16 travels as uint16.
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

// `count` elements of `size` bytes, whose NumPy kind is this one; C-contiguous and aligned.
template <class T>
T* as_buffer(const py::array& array, py::ssize_t count, char kind, const char* what,
             py::ssize_t size = sizeof(T)) {
  constexpr int kReady = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  const py::dtype dtype = array.dtype();
  const bool native = kind == 'V' ? !dtype.attr("hasobject").cast<bool>() : is_native(dtype);
  if ((array.flags() & kReady) != kReady || array.size() != count || dtype.kind() != kind ||
      dtype.itemsize() != size || !native)
    misuse(what);
  return const_cast<T*>(static_cast<const T*>(array.data()));
}

constexpr py::ssize_t kMostStages = 64;

// Chains that live in records, of which each is min_tokens_to_keep and the stages.
class Chains {
 public:
  explicit Chains(const py::array& records) {
    constexpr py::ssize_t kHead = sizeof(int64_t);
    const py::ssize_t size = records.itemsize(),
                      stages = (size - kHead) / py::ssize_t(sizeof(fs_stage));
    if (size < kHead || (size - kHead) % py::ssize_t(sizeof(fs_stage)) || stages > kMostStages)
      misuse(kWhat);
    const char* data = as_buffer<char>(records, records.size(), 'V', kWhat, size);
    chains_.resize(size_t(records.size()));
    for (fs_chain& chain : chains_) {
      chain = {sizeof(fs_chain), reinterpret_cast<const fs_stage*>(data + kHead), stages, 0};
      std::memcpy(&chain.min_tokens_to_keep, data, sizeof chain.min_tokens_to_keep);
      data += size;
    }
  }
  const fs_chain* get() const { return chains_.data(); }
  int64_t count() const { return int64_t(chains_.size()); }

 private:
  static constexpr const char* kWhat = "params must hold records of chains";
  std::vector<fs_chain> chains_;
};

// What each row is drawn with beside u: coin (B,), state (B, 2), edits (records of fs_edit) with
// their offsets (B + 1,), allowed (B, words) of uint32. Keywords, each of which may be missing.
class Draws {
 public:
  Draws(const py::kwargs& inputs, int64_t rows, const py::array* u = nullptr)
      : draws_(size_t(rows), fs_draw{}) {
    const double* uniforms =
        u ? as_buffer<double>(*u, rows, 'f', "u must be float64 of length B") : nullptr;
    for (int64_t i = 0; i < rows; ++i) {
      draws_[size_t(i)].struct_size = sizeof(fs_draw);
      if (uniforms) draws_[size_t(i)].u = uniforms[i];
    }
    if (rows > 0 && inputs.size()) take(inputs, rows);
  }
  const fs_draw* get() const { return draws_.data(); }

 private:
  void take(const py::kwargs& inputs, int64_t rows) {
    const double* coins = get<double>(inputs, "coin", rows, 'f');
    double* states = get<double>(inputs, "state", 2 * rows, 'f');
    const int64_t* offsets = get<int64_t>(inputs, "edit_offsets", rows + 1, 'i');
    const int64_t count = offsets ? offsets[rows] : 0;
    const fs_edit* edits = offsets ? get<fs_edit>(inputs, "edits", count, 'V') : nullptr;
    const int64_t words = inputs.contains("allowed") ? size_of(inputs["allowed"]) / rows : 0;
    const uint32_t* allowed = get<uint32_t>(inputs, "allowed", words * rows, 'u');
    for (int64_t i = 0; i < rows; ++i) {
      fs_draw& draw = draws_[size_t(i)];
      if (coins) draw.u_xtc = coins[i];
      if (states) draw.state = states + 2 * i;
      if (edits) {
        if (offsets[i] < 0 || offsets[i + 1] < offsets[i]) misuse("edit_offsets must rise from 0");
        draw.edits = edits + offsets[i];
        draw.edit_count = offsets[i + 1] - offsets[i];
      }
      if (allowed) {
        draw.allowed = allowed + i * words;
        draw.allowed_count = 32 * words;
      }
    }
  }
  static int64_t size_of(const py::handle& array) { return array.cast<py::array>().size(); }
  template <class T>
  static T* get(const py::kwargs& inputs, const char* name, int64_t count, char kind) {
    if (!inputs.contains(name)) return nullptr;
    return as_buffer<T>(inputs[name].cast<py::array>(), count, kind, name);
  }
  std::vector<fs_draw> draws_;
};

void sample(const py::array& rows, const py::array& params, const py::array& u, bool mark,
            py::array tokens, int threads, const py::kwargs& inputs) {
  const fs_logits logits = as_logits(rows);
  const Chains chains(params);
  const Draws draws(inputs, logits.rows, &u);
  int64_t* out = as_buffer<int64_t>(tokens, logits.rows, 'i', "tokens must be int64 of length B");
  if (!tokens.writeable()) misuse("tokens must be writeable");
  fs_status status;
  {
    py::gil_scoped_release release;
    status = fs_sample(&logits, chains.get(), chains.count(), draws.get(), threads,
                       mark ? FS_MARK_BAD_ROWS : 0, out);
  }
  check(status);
}

// As sample, and writes what `details` has arrays for: logprob, rank, top_ids, top_logprobs,
// support with support_count, log_mass.
void sample_details(const py::array& rows, const py::array& params, const py::array& u, bool mark,
                    py::array tokens, int threads, int logprobs, const py::dict& details,
                    const py::kwargs& inputs) {
  const fs_logits logits = as_logits(rows);
  const Chains chains(params);
  const Draws draws(inputs, logits.rows, &u);
  int64_t* out = as_buffer<int64_t>(tokens, logits.rows, 'i', "tokens must be int64 of length B");
  if (!tokens.writeable()) misuse("tokens must be writeable");
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
  wanted.top_ids = array("top_ids", n * wanted.top_count, 'i', wanted.top_ids);
  wanted.top_logprobs = array("top_logprobs", n * wanted.top_count, 'f', wanted.top_logprobs);
  wanted.support = array("support", n * logits.vocab, 'i', wanted.support);
  wanted.support_count = array("support_count", n, 'i', wanted.support_count);
  wanted.log_mass = array("log_mass", n, 'f', wanted.log_mass);
  fs_status status;
  {
    py::gil_scoped_release release;
    status = fs_sample_details(&logits, chains.get(), chains.count(), draws.get(), threads,
                               mark ? FS_MARK_BAD_ROWS : 0, out, &wanted);
  }
  check(status);
}

// One uniform of each seed, stream and offset.
py::array_t<double> uniforms(const py::array& seeds, const py::array& streams,
                             const py::array& offsets) {
  const py::ssize_t count = seeds.size();
  constexpr const char* kWhat = "seeds, streams and offsets must be uint64 of one length";
  const uint64_t* seed = as_buffer<uint64_t>(seeds, count, 'u', kWhat);
  const uint64_t* stream = as_buffer<uint64_t>(streams, count, 'u', kWhat);
  const uint64_t* offset = as_buffer<uint64_t>(offsets, count, 'u', kWhat);
  py::array_t<double> out(count);
  double* u = out.mutable_data();
  for (py::ssize_t i = 0; i < count; ++i) u[i] = fs_uniform(seed[i], stream[i], offset[i]);
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

bool word_of(PyObject* item, uint64_t& to) {
  if (!PyLong_CheckExact(item)) return false;
  to = PyLong_AsUnsignedLongLong(item);
  if (to != uint64_t(-1) || !PyErr_Occurred()) return true;
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

py::array_t<float> probs(const py::array& rows, const py::array& params, const py::kwargs& inputs) {
  const fs_logits logits = as_logits(rows);
  const Chains chains(params);
  const Draws draws(inputs, logits.rows);
  py::array_t<float> out({rows.shape(0), rows.shape(1)});
  float* data = out.mutable_data();
  fs_status status;
  {
    py::gil_scoped_release release;
    status = fs_probs(&logits, chains.get(), chains.count(), draws.get(), data);
  }
  check(status);
  return out;
}

template <class Function>
py::array_t<float> write_all(Function function, const py::array& rows, double temperature) {
  const fs_logits logits = as_logits(rows);
  py::array_t<float> out({rows.shape(0), rows.shape(1)});
  float* data = out.mutable_data();
  fs_status status;
  {
    py::gil_scoped_release release;
    status = function(&logits, temperature, data);
  }
  check(status);
  return out;
}

py::tuple survivors(const py::array& rows, const py::array& params, const py::kwargs& inputs) {
  const fs_logits logits = as_logits(rows);
  const Draws draws(inputs, logits.rows);
  const Chains chains(params);
  if (chains.count() != 1) misuse("params must hold one record");
  py::array_t<int64_t> ids(logits.vocab);
  py::array_t<float> probabilities(logits.vocab);
  int64_t* id_data = ids.mutable_data();
  float* prob_data = probabilities.mutable_data();
  int64_t count = 0;
  fs_status status;
  {
    py::gil_scoped_release release;
    status =
        fs_survivors(&logits, chains.get(), draws.get(), logits.vocab, id_data, prob_data, &count);
  }
  check(status);
  const py::slice head(0, count, 1);
  return py::make_tuple(ids[head].attr("copy")(), probabilities[head].attr("copy")());
}

// The low-latency path: parameters held ready, one contiguous row, no Python in between, and a
// plain C function, which is called in less time than one of pybind11.
//
// draw(row, seed, offset) is the token, or -1 where the general path has to look at the arguments.
constexpr const char* kChain = "fs_chain";

struct Plan {
  std::vector<fs_stage> stages;
  fs_chain chain;
};

int64_t draw(const fs_chain& chain, PyObject* array, PyObject* seed, PyObject* offset) {
  using py::detail::npy_api;
  if (!PyLong_CheckExact(seed) || !PyLong_CheckExact(offset)) return -1;
  const uint64_t key = PyLong_AsUnsignedLongLong(seed);
  const uint64_t step = PyLong_AsUnsignedLongLong(offset);
  if (PyErr_Occurred()) {  // out of range, which the general path words
    PyErr_Clear();
    return -1;
  }
  // Exactly numpy.ndarray: a subclass may mean something else by its data.
  if (Py_TYPE(array) != npy_api::get().PyArray_Type_) return -1;
  const auto* proxy = py::detail::array_proxy(array);
  constexpr int kReady = npy_api::NPY_ARRAY_C_CONTIGUOUS_ | npy_api::NPY_ARRAY_ALIGNED_;
  if (proxy->nd != 1 || (proxy->flags & kReady) != kReady) return -1;
  const int dtype = element_type(py::reinterpret_borrow<py::dtype>(proxy->descr));
  if (dtype < 0) return -1;
  const fs_logits logits = {
      sizeof(fs_logits), proxy->data, 1, proxy->dimensions[0], 0, 0, dtype, 0};
  fs_draw drawn_with{};
  drawn_with.struct_size = sizeof drawn_with;
  drawn_with.u = fs_uniform(key, 0, step);
  int64_t token = -1;
  const auto run = [&] { return fs_sample(&logits, &chain, 1, &drawn_with, 1, 0, &token); };
  const auto run_released = [&] {
    py::gil_scoped_release release;
    return run();
  };
  // A short row is drawn from before another Python thread would have woken up.
  constexpr int64_t kShort = 4096;
  const fs_status status = logits.vocab < kShort ? run() : run_released();
  // A row that fails is looked at again by the general path, which words the error.
  return status == FS_OK ? token : -1;
}

PyObject* call_draw(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (count != 3) {
    PyErr_SetString(PyExc_TypeError, "draw() takes row, seed and offset");
    return nullptr;
  }
  const auto* held = static_cast<const Plan*>(PyCapsule_GetPointer(self, kChain));
  return PyLong_FromLongLong(draw(held->chain, args[0], args[1], args[2]));
}

// Name and joint of every stage of the named orders.
py::dict orders() {
  py::dict result;
  std::string names = fs_orders();
  for (size_t at = 0; at < names.size();) {
    const size_t end = std::min(names.find(',', at), names.size());
    const std::string name = names.substr(at, end - at);
    fs_stage stages[kMostStages];
    const int64_t count = fs_order_init(name.c_str(), stages, sizeof *stages, kMostStages);
    py::list order;
    for (int64_t i = 0; i < count; ++i)
      order.append(py::make_tuple(fs_stage_name(stages[i].kind), bool(stages[i].joint)));
    result[name.c_str()] = order;
    at = end + 1;
  }
  return result;
}

py::object plan(const py::array& params) {
  const Chains chains(params);
  if (chains.count() != 1) misuse("params must hold one record");
  const fs_chain& chain = *chains.get();
  auto* plan = new Plan{{chain.stages, chain.stages + chain.stage_count}, chain};
  plan->chain.stages = plan->stages.data();
  const py::capsule held(plan, kChain, [](PyObject* capsule) {
    delete static_cast<Plan*>(PyCapsule_GetPointer(capsule, kChain));
  });
  static PyMethodDef method = {"draw",
                               reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(call_draw)),
                               METH_FASTCALL, nullptr};
  PyObject* function = PyCFunction_New(&method, held.ptr());
  if (!function) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(function);
}

}  // namespace

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "Compiled backend of fastsample.";
  m.attr("version") = fs_version();
  m.def("isa", [] {
    const std::string isa = fs_isa();
    if (isa.empty()) check(fs_force_isa(std::getenv("FASTSAMPLE_ISA")));  // words the error
    return isa;
  });
  m.def("isas", &fs_isas);
  m.def("orders", &orders);
  m.def("force_isa", [](const std::string& name) { check(fs_force_isa(name.c_str())); });
  m.def("uniform", &fs_uniform, py::arg("seed"), py::arg("stream"), py::arg("offset"));
  m.def("uniforms", &uniforms, py::arg("seeds"), py::arg("streams"), py::arg("offsets"));
  m.def("take_numbers", &take_numbers, py::arg("values"), py::arg("out"), py::arg("low"),
        py::arg("high"), py::arg("integers"));
  m.def("take_words", &take_words, py::arg("values"), py::arg("out"));
  m.def("noop", [](const py::array&) {}, py::arg("array"));  // what any call costs
  m.def("sample", &sample, py::arg("rows"), py::arg("params"), py::arg("u"), py::arg("mark"),
        py::arg("tokens"), py::arg("threads") = 0);
  m.def("sample_details", &sample_details, py::arg("rows"), py::arg("params"), py::arg("u"),
        py::arg("mark"), py::arg("tokens"), py::arg("threads"), py::arg("logprobs"),
        py::arg("details"));
  m.def("probs", &probs, py::arg("rows"), py::arg("params"));
  m.def(
      "softmax", [](const py::array& rows, double t) { return write_all(fs_softmax, rows, t); },
      py::arg("rows"), py::arg("temperature"));
  m.def(
      "log_softmax",
      [](const py::array& rows, double t) { return write_all(fs_log_softmax, rows, t); },
      py::arg("rows"), py::arg("temperature"));
  m.def("survivors", &survivors, py::arg("rows"), py::arg("params"));
  m.def("plan", &plan, py::arg("params"));
}
