#include "bindings/quick.h"

#include <vector>

namespace fastsample::bindings {

namespace {

// Draws by what a sequence holds; says whether it did.
bool step_one(HeldSequence& held, const fs_logits& logits, const fs_masks* masks, int64_t& token,
              const fs_details* details) {
  fs_sampler* sampler = held.sampler.get();
  const fs_status status = released(
      logits, [&] { return fs_step_details(&sampler, &logits, masks, 1, 0, &token, details); });
  if (status == FS_OK) held.drew();
  return status == FS_OK;
}

// What is told of a draw, and the memory that it is written to.
class Told {
 public:
  // False where the general path has to look.
  bool take(PyObject* const* args, int64_t vocab) {
    if (vocab > FS_MAX_VOCAB || !take_kind(args[0]) || !PyLong_CheckExact(args[1])) return false;
    top_ = PyLong_AsLongLong(args[1]);
    if (top_ == -1 && PyErr_Occurred()) PyErr_Clear();
    if (top_ < 0 || top_ > vocab || (top_ > 0 && !kind_)) return false;
    if (!PyBool_Check(args[2]) || !PyBool_Check(args[3])) return false;
    asks_support_ = args[2] == Py_True;
    asks_mass_ = args[3] == Py_True;
    return true;
  }
  fs_details details(int64_t vocab) {
    fs_details wanted{};
    wanted.struct_size = sizeof wanted;
    wanted.logprobs = kind_;
    if (kind_) {
      wanted.logprob = &logprob_;
      wanted.rank = &rank_;
    }
    if (top_) {
      py::array_t<int32_t> ids(top_);
      py::array_t<float> logprobs(top_);
      wanted.top_count = top_;
      wanted.top_ids = ids.mutable_data();
      wanted.top_logprobs = logprobs.mutable_data();
      top_ids_ = std::move(ids);
      top_logprobs_ = std::move(logprobs);
    }
    if (asks_support_) {
      thread_local std::vector<int32_t> kept;  // one as large for each call would be slow at times
      if (kept.size() < size_t(vocab)) kept.resize(size_t(vocab));
      kept_ = wanted.support = kept.data();
      wanted.support_count = &count_;
    }
    if (asks_mass_) wanted.log_mass = &log_mass_;
    return wanted;
  }
  PyObject* tuple(int64_t token) const {
    // First: a tuple may make Python collect garbage, and that draw once more in this thread.
    py::object support = py::none();
    if (asks_support_) support = py::array_t<int32_t>(count_, kept_);
    py::tuple told(8);
    const auto put = [&](size_t i, bool asked, auto make) {
      py::object value = py::none();
      if (asked) value = make();
      PyTuple_SET_ITEM(told.ptr(), py::ssize_t(i), value.release().ptr());
    };
    put(0, true, [&] { return py::int_(token); });
    put(1, kind_ != 0, [&] { return py::float_(double(logprob_)); });
    put(2, kind_ != 0, [&] { return py::int_(rank_); });
    put(3, top_ != 0, [&] { return top_ids_; });
    put(4, top_ != 0, [&] { return top_logprobs_; });
    put(5, true, [&] { return std::move(support); });
    put(6, asks_support_, [&] {
      const int64_t ends[] = {0, count_};
      return py::array_t<int64_t>(2, ends);
    });
    put(7, asks_mass_, [&] { return py::float_(log_mass_); });
    return told.release().ptr();
  }

 private:
  bool take_kind(PyObject* logprobs) {
    if (logprobs == Py_None) return true;
    if (!PyUnicode_CheckExact(logprobs)) return false;
    const auto is = [&](const char* name) {
      return PyUnicode_CompareWithASCIIString(logprobs, name) == 0;
    };
    kind_ = is("raw") ? FS_LOGPROBS_RAW : is("processed") ? FS_LOGPROBS_PROCESSED : 0;
    return kind_ != 0;
  }

  int32_t kind_ = 0;
  int64_t top_ = 0;
  bool asks_support_ = false, asks_mass_ = false;
  float logprob_ = 0.0f;
  double log_mass_ = 0.0;
  int64_t rank_ = 0, count_ = 0;
  py::object top_ids_, top_logprobs_;  // arrays
  int32_t* kept_ = nullptr;
};

}  // namespace

PyObject* draw_quickly(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (count != 1 && count != 2) return refuse_count("draw() takes row and allowed");
  return without_exceptions([&] {
    HeldSequence& held = *held_by<std::shared_ptr<HeldSequence>>(self);
    fs_logits logits;
    fs_masks masks{};
    int64_t token = -1;
    const bool plain = count == 1;
    if (held.ready && as_row(args[0], logits) && (plain || as_words(args[1], masks)) &&
        !step_one(held, logits, plain ? nullptr : &masks, token, nullptr))
      token = -1;
    return PyLong_FromLongLong(token);
  });
}

PyObject* tell_quickly(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (count != 5)
    return refuse_count("tell() takes row, logprobs, top_logprobs, support and log_mass");
  return without_exceptions([&]() -> PyObject* {
    HeldSequence& held = *held_by<std::shared_ptr<HeldSequence>>(self);
    fs_logits logits;
    Told told;
    if (!held.ready || !as_row(args[0], logits) || !told.take(args + 1, logits.vocab))
      Py_RETURN_NONE;
    const fs_details details = told.details(logits.vocab);
    int64_t token = -1;
    if (!step_one(held, logits, nullptr, token, &details)) Py_RETURN_NONE;
    return told.tuple(token);
  });
}

}  // namespace fastsample::bindings
