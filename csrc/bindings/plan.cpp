// Plan: parameters held ready for one contiguous row, no Python in between.
#include "bindings/module.h"
#include "bindings/quick.h"

namespace fastsample::bindings {

namespace {

struct Plan {
  std::vector<fs_stage> stages;
  fs_chain chain;
};

fs_status draw(const Plan& plan, const fs_logits& logits, uint64_t seed, uint64_t offset,
               int64_t* token) {
  fs_draw drawn_with{};
  drawn_with.struct_size = sizeof drawn_with;
  drawn_with.u = fs_uniform(seed, 0, offset);
  return released(logits,
                  [&] { return fs_sample(&logits, &plan.chain, 1, &drawn_with, 1, 0, token); });
}

py::object plan(const py::array& params) {
  const Chains chains(params);
  if (chains.count() != 1) misuse("params must hold one record");
  const fs_chain& chain = *chains.get();
  auto plan = std::make_unique<Plan>(Plan{{chain.stages, chain.stages + chain.stage_count}, chain});
  plan->chain.stages = plan->stages.data();
  return make_draw<Plan, draw>(std::move(plan));
}

}  // namespace

void define_plan(py::module_& m) { m.def("plan", &plan, py::arg("params")); }

}  // namespace fastsample::bindings
