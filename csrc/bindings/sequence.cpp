// Sequence: a chain, rules, a history and a state held ready, what fs_sampler is; and the step of
// many of them. As a plan it has a low-latency path.
#include "bindings/sequence.h"

#include "bindings/module.h"
#include "bindings/quick.h"

namespace fastsample::bindings {

namespace {

fs_status draw(const Sampler& held, const fs_logits& logits, uint64_t seed, uint64_t offset,
               int64_t* token) {
  fs_sampler* sampler = held.get();
  const fs_status status = fs_sampler_seek(sampler, seed, 0, offset);
  if (status != FS_OK) return status;
  return released(logits, [&] { return fs_step(&sampler, &logits, 1, 0, token); });
}

class Sequence {
 public:
  explicit Sequence(Sampler sampler)
      : sampler_(std::move(sampler)),
        draw_(make_draw<Sampler, bindings::draw>(std::make_unique<Sampler>(sampler_))) {}
  fs_sampler* get() const { return sampler_.get(); }
  const py::object& draw() const { return draw_; }
  Sequence copy() const {
    fs_sampler* made = nullptr;
    check(fs_sampler_copy(get(), &made));
    return Sequence(Sampler(made, fs_sampler_free));
  }
  py::object state() const {
    const fs_sampler_info info = info_of(get());
    if (!info.state_size) return py::none();
    py::array_t<double> out(info.state_size);
    std::copy_n(info.state, info.state_size, out.mutable_data());
    return out;
  }
  void set_state(const py::array_t<double, py::array::c_style>& state) const {
    double numbers[2] = {0.0, 0.0};
    if (state.size() != info_of(get()).state_size) misuse("state is of another size");
    std::copy_n(state.data(), state.size(), numbers);
    check(fs_sampler_set_state(get(), numbers));
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

Sequence make(const py::array& params, const py::iterable& rules) {
  const Chains chains(params);
  if (chains.count() != 1) misuse("params must hold one record");
  return Sequence(new_sampler(*chains.get(), rules));
}

// Draws a token of each sequence from its row; false where the general path has to look at the
// arguments, and then nothing has moved. Seeds and offsets may be None: their own.
bool step(const py::list& sequences, const py::array& rows, const py::object& seeds,
          const py::object& offsets, bool mark, py::array tokens, int threads) {
  const fs_logits logits = as_logits(rows);
  const auto count = py::ssize_t(sequences.size());
  if (logits.rows != count) misuse("sequences must be as many as rows");
  int64_t* out = as_buffer<int64_t>(tokens, count, 'i', "tokens must be int64 of length B");
  if (!tokens.writeable()) misuse("tokens must be writeable");
  std::vector<fs_sampler*> samplers(size_t(count), nullptr);
  py::detail::make_caster<Sequence> caster;
  for (py::ssize_t i = 0; i < count; ++i) {
    if (!caster.load(PyList_GET_ITEM(sequences.ptr(), i), false)) return false;
    const auto* sequence = py::detail::cast_op<const Sequence*>(caster);
    if (!sequence) return false;  // None
    samplers[size_t(i)] = sequence->get();
  }
  if (!seeds.is_none() || !offsets.is_none()) {
    constexpr const char* kWhat = "seeds and offsets must be uint64 of length B";
    const uint64_t* seed = as_buffer<uint64_t>(seeds.cast<py::array>(), count, 'u', kWhat);
    const uint64_t* offset = as_buffer<uint64_t>(offsets.cast<py::array>(), count, 'u', kWhat);
    for (py::ssize_t i = 0; i < count; ++i)
      if (fs_sampler_seek(samplers[size_t(i)], seed[i], 0, offset[i]) != FS_OK) return false;
  }
  const fs_status status = released(logits, [&] {
    return fs_step(samplers.data(), &logits, threads, mark ? FS_MARK_BAD_ROWS : 0, out);
  });
  if (status == FS_NO_MEMORY) check(status);
  return status == FS_OK;
}

}  // namespace

void define_sequence(py::module_& m) {
  py::class_<Sequence>(m, "Sequence")
      .def(py::init(&make), py::arg("params"), py::arg("rules") = py::tuple())
      .def_property_readonly("draw", &Sequence::draw)
      .def("copy", &Sequence::copy)
      .def(
          "start",
          [](const Sequence& s, const py::object& ids, const py::object& prompt_length) {
            start(s.get(), ids, prompt_length);
          },
          py::arg("ids"), py::arg("prompt_length") = py::none())
      .def(
          "push", [](const Sequence& s, const py::object& ids) { push(s.get(), ids); },
          py::arg("ids"))
      .def("pop", &Sequence::pop, py::arg("n"))
      .def("reset", [](const Sequence& s) { check(fs_sampler_reset(s.get(), 0, 0, 0)); })
      .def("seek", &Sequence::seek, py::arg("seed"), py::arg("offset"), py::arg("stream") = 0)
      .def("__len__", [](const Sequence& s) { return info_of(s.get()).history_length; })
      .def_property_readonly("prompt_length",
                             [](const Sequence& s) { return info_of(s.get()).prompt_length; })
      .def_property_readonly("seed", [](const Sequence& s) { return info_of(s.get()).seed; })
      .def_property_readonly("offset", [](const Sequence& s) { return info_of(s.get()).offset; })
      .def("tokens", [](const Sequence& s) { return tokens_of(s.get()); })
      .def(
          "edits", [](const Sequence& s, int64_t vocab) { return edits_of(s.get(), vocab); },
          py::arg("vocab"))
      .def_property("state", &Sequence::state, &Sequence::set_state);
  m.def("step", &step, py::arg("sequences"), py::arg("rows"), py::arg("seeds"), py::arg("offsets"),
        py::arg("mark"), py::arg("tokens"), py::arg("threads") = 0);
}

}  // namespace fastsample::bindings
