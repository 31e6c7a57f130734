// The low-latency path: parameters held ready, one contiguous row, no Python in between, and a
// plain C function, which is called in less time than one of pybind11.
//
// draw(row, seed, offset) is the token, or -1 where the general path has to look at the arguments.
#include "bindings/module.h"

namespace fastsample::bindings {

namespace {

constexpr const char* kChain = "fs_chain";

struct Plan {
  std::vector<fs_stage> stages;
  fs_chain chain;
};

int64_t draw(const fs_chain& chain, PyObject* array, PyObject* seed, PyObject* offset) {
  uint64_t key, step;
  if (!word_of(seed, key) || !word_of(offset, step)) return -1;
  fs_logits logits;
  if (!as_row(array, logits)) return -1;
  fs_draw drawn_with{};
  drawn_with.struct_size = sizeof drawn_with;
  drawn_with.u = fs_uniform(key, 0, step);
  int64_t token = -1;
  const auto run = [&] { return fs_sample(&logits, &chain, 1, &drawn_with, 1, 0, &token); };
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
  const auto* held = static_cast<const Plan*>(PyCapsule_GetPointer(self, kChain));
  return PyLong_FromLongLong(draw(held->chain, args[0], args[1], args[2]));
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

void define_plan(py::module_& m) { m.def("plan", &plan, py::arg("params")); }

}  // namespace fastsample::bindings
