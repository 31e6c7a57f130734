// Plan: parameters held ready for one contiguous row, no Python in between.
#include "bindings/module.h"
#include "bindings/quick.h"

namespace fastsample::bindings {

namespace {

struct Plan {
  std::vector<fs_stage> stages;
  fs_chain chain;
};

// Of a row with a seed and an offset.
PyObject* draw(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (count != 3) return refuse_count("draw() takes row, seed and offset");
  return without_exceptions([&] {
    const Plan& plan = held_by<Plan>(self);
    uint64_t seed, offset;
    fs_logits logits;
    int64_t token = -1;
    if (word_of(args[1], seed) && word_of(args[2], offset) && as_row(args[0], logits)) {
      fs_draw drawn_with{};
      drawn_with.struct_size = sizeof drawn_with;
      drawn_with.u = fs_uniform(seed, 0, offset);
      const fs_status status = released(
          logits, [&] { return fs_sample(&logits, &plan.chain, 1, &drawn_with, 1, 0, &token); });
      if (status != FS_OK) token = -1;
    }
    return PyLong_FromLongLong(token);
  });
}

py::object plan(const py::array& params) {
  const Chains chains(params);
  if (chains.count() != 1) misuse("params must hold one record");
  const fs_chain& chain = *chains.get();
  auto plan = std::make_unique<Plan>(Plan{{chain.stages, chain.stages + chain.stage_count}, chain});
  plan->chain.stages = plan->stages.data();
  return make_function(method_of<draw>("draw"), owner_of(std::move(plan)));
}

}  // namespace

void define_plan(py::module_& m) { m.def("plan", &plan, py::arg("params")); }

}  // namespace fastsample::bindings
