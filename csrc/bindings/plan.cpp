// The low-latency path: a sequence held ready, one contiguous row, no Python in between, and a
// plain C function, which is called in less time than one of pybind11.
//
// draw(row, seed, offset) is the token, or -1 where the general path has to look at the arguments;
// then nothing has moved.
#include "bindings/module.h"
#include "bindings/sequence.h"

namespace fastsample::bindings {

namespace {

constexpr const char* kSampler = "fs_sampler";

// A short row is drawn from before another Python thread would have woken up.
constexpr int64_t kShort = 4096;

bool word_of(PyObject* item, uint64_t& to) {
  if (!PyLong_CheckExact(item)) return false;
  to = PyLong_AsUnsignedLongLong(item);
  if (to != uint64_t(-1) || !PyErr_Occurred()) return true;
  PyErr_Clear();
  return false;
}

int64_t draw(fs_sampler* sampler, PyObject* array, PyObject* seed, PyObject* offset) {
  uint64_t key, at;
  fs_logits logits;
  if (!word_of(seed, key) || !word_of(offset, at) || !as_row(array, logits)) return -1;
  if (fs_sampler_seek(sampler, key, 0, at) != FS_OK) return -1;
  int64_t token = -1;
  const auto run = [&] { return fs_step(&sampler, &logits, 1, 0, &token); };
  const auto run_released = [&] {
    py::gil_scoped_release release;
    return run();
  };
  const fs_status status = logits.vocab < kShort ? run() : run_released();
  // A row that fails is looked at again by the general path, which words the error.
  return status == FS_OK ? token : -1;
}

PyObject* call_draw(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (count != 3) {
    PyErr_SetString(PyExc_TypeError, "draw() takes row, seed and offset");
    return nullptr;
  }
  const auto* held = static_cast<const Sampler*>(PyCapsule_GetPointer(self, kSampler));
  return PyLong_FromLongLong(draw(held->get(), args[0], args[1], args[2]));
}

class Plan {
 public:
  explicit Plan(Sampler sampler) : sampler_(std::move(sampler)) {
    const py::capsule held(new Sampler(sampler_), kSampler, [](PyObject* capsule) {
      delete static_cast<Sampler*>(PyCapsule_GetPointer(capsule, kSampler));
    });
    static PyMethodDef method = {"draw",
                                 reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(call_draw)),
                                 METH_FASTCALL, nullptr};
    draw_ = py::reinterpret_steal<py::object>(PyCFunction_New(&method, held.ptr()));
    if (!draw_) throw py::error_already_set();
  }
  fs_sampler* get() const { return sampler_.get(); }
  const py::object& draw() const { return draw_; }
  Plan copy() const {
    fs_sampler* made = nullptr;
    check(fs_sampler_copy(get(), &made));
    return Plan(Sampler(made, fs_sampler_free));
  }
  py::object state() const {
    const fs_sampler_info info = info_of(get());
    if (!info.has_state) return py::none();
    py::array_t<double> out(2);
    std::copy_n(info.state, 2, out.mutable_data());
    return out;
  }
  void set_state(const py::array_t<double, py::array::c_style>& state) const {
    if (state.size() != 2) misuse("a state has two numbers");
    check(fs_sampler_set_state(get(), state.data()));
  }
  // The offset of the first of the last n tokens that it has drawn itself, or None.
  py::object pop(int64_t n) const {
    const uint64_t before = info_of(get()).offset;
    check(fs_sampler_rollback(get(), n));
    const uint64_t after = info_of(get()).offset;
    return after == before ? py::object(py::none()) : py::object(py::int_(after));
  }
  void seek(uint64_t seed, uint64_t offset, uint64_t stream) const {
    check(fs_sampler_seek(get(), seed, stream, offset));
  }

 private:
  Sampler sampler_;
  py::object draw_;
};

Plan plan(const py::array& params, const py::iterable& rules) {
  const Chains chains(params);
  if (chains.count() != 1) misuse("params must hold one record");
  return Plan(new_sampler(*chains.get(), rules));
}

// Draws a token of each plan from its row; false where the general path has to look at the
// arguments, and then nothing has moved. Seeds and offsets may be None: those that the plans have.
bool step(const py::list& plans, const py::array& rows, const py::object& seeds,
          const py::object& offsets, bool mark, py::array tokens, int threads) {
  const fs_logits logits = as_logits(rows);
  const auto count = py::ssize_t(plans.size());
  if (logits.rows != count) misuse("plans must be as many as rows");
  int64_t* out = as_buffer<int64_t>(tokens, count, 'i', "tokens must be int64 of length B");
  if (!tokens.writeable()) misuse("tokens must be writeable");
  std::vector<fs_sampler*> samplers(size_t(count), nullptr);
  py::detail::make_caster<Plan> caster;
  for (py::ssize_t i = 0; i < count; ++i) {
    if (!caster.load(PyList_GET_ITEM(plans.ptr(), i), false)) misuse("plans must hold plans");
    samplers[size_t(i)] = py::detail::cast_op<const Plan&>(caster).get();
  }
  if (!seeds.is_none() || !offsets.is_none()) {
    constexpr const char* kWhat = "seeds and offsets must be uint64 of length B";
    const uint64_t* seed = as_buffer<uint64_t>(seeds.cast<py::array>(), count, 'u', kWhat);
    const uint64_t* offset = as_buffer<uint64_t>(offsets.cast<py::array>(), count, 'u', kWhat);
    for (py::ssize_t i = 0; i < count; ++i)
      if (fs_sampler_seek(samplers[size_t(i)], seed[i], 0, offset[i]) != FS_OK) return false;
  }
  const auto run = [&] {
    return fs_step(samplers.data(), &logits, threads, mark ? FS_MARK_BAD_ROWS : 0, out);
  };
  const auto run_released = [&] {
    py::gil_scoped_release release;
    return run();
  };
  const fs_status status = logits.rows * logits.vocab < kShort ? run() : run_released();
  if (status == FS_NO_MEMORY) check(status);
  return status == FS_OK;
}

}  // namespace

void define_plan(py::module_& m) {
  py::class_<Plan>(m, "Plan")
      .def_property_readonly("draw", &Plan::draw)
      .def("copy", &Plan::copy)
      .def(
          "start",
          [](const Plan& p, const py::object& ids, const py::object& prompt_length) {
            start(p.get(), ids, prompt_length);
          },
          py::arg("ids"), py::arg("prompt_length") = py::none())
      .def(
          "push", [](const Plan& p, const py::object& ids) { push(p.get(), ids); }, py::arg("ids"))
      .def("pop", &Plan::pop, py::arg("n"))
      .def("reset", [](const Plan& p) { check(fs_sampler_reset(p.get(), 0, 0, 0)); })
      .def("seek", &Plan::seek, py::arg("seed"), py::arg("offset"), py::arg("stream") = 0)
      .def("__len__", [](const Plan& p) { return info_of(p.get()).history_length; })
      .def_property_readonly("prompt_length",
                             [](const Plan& p) { return info_of(p.get()).prompt_length; })
      .def_property_readonly("seed", [](const Plan& p) { return info_of(p.get()).seed; })
      .def_property_readonly("offset", [](const Plan& p) { return info_of(p.get()).offset; })
      .def("tokens", [](const Plan& p) { return tokens_of(p.get()); })
      .def(
          "edits", [](const Plan& p, int64_t vocab) { return edits_of(p.get(), vocab); },
          py::arg("vocab"))
      .def_property("state", &Plan::state, &Plan::set_state);
  m.def("plan", &plan, py::arg("params"), py::arg("rules") = py::tuple());
  m.def("step", &step, py::arg("plans"), py::arg("rows"), py::arg("seeds"), py::arg("offsets"),
        py::arg("mark"), py::arg("tokens"), py::arg("threads") = 0);
}

}  // namespace fastsample::bindings
