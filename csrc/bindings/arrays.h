// Arguments of Python as the C ABI takes them: arrays, chains, what a row is drawn with. They are
// only prevented from crashing; validation and documentation are in Python.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstring>
#include <vector>

#include "fastsample.h"

namespace fastsample::bindings {

namespace py = pybind11;

// Raises what the C ABI has said.
void check(fs_status status);

[[noreturn]] void misuse(const char* what);

bool is_native(const py::dtype& dtype);

// The fs_dtype of a NumPy dtype in native byte order, or -1. bfloat16 is that of ml_dtypes.
int element_type(const py::dtype& dtype);

// A (B, V) array of one of the four element types; bfloat16 travels as uint16.
fs_logits as_logits(const py::array& rows);

// The same of one row, an array of NumPy's own type without a copy; false where it is not that.
bool as_row(PyObject* array, fs_logits& logits);

// The same of rows one after the other.
bool as_whole(PyObject* array, fs_logits& logits);

// A line of int64; false where it is not that.
bool as_int64(PyObject* array, const int64_t*& data, py::ssize_t& count);

// The same of a packed mask, one for all rows.
bool as_words(PyObject* array, fs_masks& masks);

// An int of Python as a 64-bit word; false where it is not that.
inline bool word_of(PyObject* item, uint64_t& to) {
  if (!PyLong_CheckExact(item)) return false;
  to = PyLong_AsUnsignedLongLong(item);
  if (to != uint64_t(-1) || !PyErr_Occurred()) return true;
  PyErr_Clear();
  return false;
}

// A short row is drawn from before another Python thread would have woken up.
constexpr int64_t kShort = 4096;

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

// What `details` has arrays for: logprob, rank, at_least, top_ids, top_logprobs, support with
// support_count, log_mass.
fs_details as_details(const py::dict& details, int logprobs, const fs_logits& logits);

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

// The sampler of a History; null of None.
fs_sampler* past_of(const py::handle& history);

// What each row is drawn with beside u: coin (B,), state (B, 2), edits (records of fs_edit) with
// their offsets (B + 1,) or pasts, a list of a History or None for each row, allowed (B, words) of
// uint32. Keywords, each of which may be missing.
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
    py::list pasts;
    if (inputs.contains("pasts")) pasts = inputs["pasts"].cast<py::list>();
    if (!pasts.empty() && py::ssize_t(pasts.size()) != rows)
      misuse("pasts must be as many as rows");
    for (int64_t i = 0; i < rows; ++i) {
      fs_draw& draw = draws_[size_t(i)];
      if (coins) draw.u_xtc = coins[i];
      if (states) draw.state = states + 2 * i;
      if (!pasts.empty()) draw.past = past_of(pasts[size_t(i)]);
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

}  // namespace fastsample::bindings
