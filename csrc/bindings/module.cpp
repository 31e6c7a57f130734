// The extension module `_core`: an ordinary client of fastsample.h.
#include "bindings/module.h"

#include <cstdlib>
#include <string>

namespace fastsample::bindings {

namespace {

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

}  // namespace

}  // namespace fastsample::bindings

using namespace fastsample::bindings;

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
  m.def("noop", [](const py::array&) {}, py::arg("array"));  // what any call costs
  define_numbers(m);
  define_draws(m);
  define_history(m);
  define_plan(m);
  define_sequence(m);
  define_verification(m);
}
