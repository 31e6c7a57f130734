// Stateless calls: tokens, probabilities and survivors of rows.
#include "bindings/module.h"

namespace fastsample::bindings {

namespace {

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

// As sample, and writes what `details` has arrays for.
void sample_details(const py::array& rows, const py::array& params, const py::array& u, bool mark,
                    py::array tokens, int threads, int logprobs, const py::dict& details,
                    const py::kwargs& inputs) {
  const fs_logits logits = as_logits(rows);
  const Chains chains(params);
  const Draws draws(inputs, logits.rows, &u);
  int64_t* out = as_buffer<int64_t>(tokens, logits.rows, 'i', "tokens must be int64 of length B");
  if (!tokens.writeable()) misuse("tokens must be writeable");
  const fs_details wanted = as_details(details, logprobs, logits);
  fs_status status;
  {
    py::gil_scoped_release release;
    status = fs_sample_details(&logits, chains.get(), chains.count(), draws.get(), threads,
                               mark ? FS_MARK_BAD_ROWS : 0, out, &wanted);
  }
  check(status);
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

}  // namespace

void define_draws(py::module_& m) {
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
}

}  // namespace fastsample::bindings
