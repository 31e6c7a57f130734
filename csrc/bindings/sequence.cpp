// Sequence: a chain, rules, a history, a state and the place of the next draw held ready, what
// fs_sampler is; and the step of many of them. As a plan it has a low-latency path.
#include "bindings/module.h"
#include "bindings/quick.h"

namespace fastsample::bindings {

namespace {

class Sequence {
 public:
  explicit Sequence(Sampler sampler) : held_(std::make_shared<HeldSequence>()) {
    held_->sampler = std::move(sampler);
    owner_ = owner_of(std::make_unique<std::shared_ptr<HeldSequence>>(held_));
  }
  fs_sampler* get() const { return held_->sampler.get(); }
  HeldSequence& held() const { return *held_; }
  py::object draw() const { return make_function(method_of<draw_quickly>("draw"), owner_); }
  py::object tell() const { return make_function(method_of<tell_quickly>("tell"), owner_); }
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
  // False where they are no words: then nothing is drawn until it is told better.
  bool seek(const py::object& seed, const py::object& offset) const {
    uint64_t seed_word, offset_word;
    const bool words = word_of(seed.ptr(), seed_word) && word_of(offset.ptr(), offset_word);
    if (words) check(fs_sampler_seek(get(), seed_word, 0, offset_word));
    held_->ready = words;
    return words;
  }
  // Appends what was drawn elsewhere at this offset and those that follow.
  void accept(const py::object& ids, uint64_t offset) const {
    check(fs_sampler_seek(get(), info_of(get()).seed, 0, offset));
    bindings::accept(get(), ids);
  }
  // The offset of the first of the last n tokens that was drawn, or None where none was.
  py::object pop(int64_t n) const {
    const uint64_t before = info_of(get()).offset;
    check(fs_sampler_rollback(get(), n));
    const uint64_t after = info_of(get()).offset;
    return after == before ? py::object(py::none()) : py::object(py::int_(after));
  }
  // The offset at which each token was drawn; None where it was not, or cannot be taken back.
  py::list steps() const {
    fs_sampler* made = nullptr;
    check(fs_sampler_copy(get(), &made));
    const Sequence copy(Sampler(made, fs_sampler_free));
    const int64_t size = info_of(made).history_length;
    py::list steps;
    for (int64_t i = 0; i < size; ++i) steps.append(py::none());
    for (int64_t i = size - 1; i >= 0; --i) {
      // From a place at which none was drawn.
      constexpr uint64_t kNowhere = UINT64_MAX;
      check(fs_sampler_seek(made, 0, 0, kNowhere));
      if (fs_sampler_rollback(made, 1) != FS_OK) break;
      const uint64_t offset = info_of(made).offset;
      if (offset != kNowhere) steps[size_t(i)] = py::int_(offset);
    }
    return steps;
  }

 private:
  std::shared_ptr<HeldSequence> held_;
  py::object owner_;  // of another pointer to it, for functions of C
};

Sequence make(const py::array& params, const py::iterable& rules) {
  const Chains chains(params);
  if (chains.count() != 1) misuse("params must hold one record");
  return Sequence(new_sampler(*chains.get(), rules));
}

// The sequences of a step: of a list, which holds them.
class Stepped {
 public:
  // False where one of them is none, or has to be looked at by the general path.
  bool take(PyObject* list) {
    static const auto* type =
        reinterpret_cast<PyTypeObject*>(py::type::of<Sequence>().release().ptr());
    const Py_ssize_t count = PyList_GET_SIZE(list);
    samplers_.resize(size_t(count));
    held_.resize(size_t(count));
    for (Py_ssize_t i = 0; i < count; ++i) {
      PyObject* item = PyList_GET_ITEM(list, i);
      if (Py_TYPE(item) != type) return false;
      const Sequence* sequence = reinterpret_cast<py::detail::instance*>(item)
                                     ->get_value_and_holder()
                                     .value_ptr<Sequence>();
      if (!sequence) return false;  // of __new__ alone
      HeldSequence& held = sequence->held();
      if (!held.ready) return false;
      samplers_[size_t(i)] = held.sampler.get();
      held_[size_t(i)] = &held;
    }
    return true;
  }
  int64_t count() const { return int64_t(samplers_.size()); }
  fs_status step(const fs_logits& logits, const fs_masks* masks, int threads, uint32_t flags,
                 int64_t* tokens, const fs_details* details) {
    const fs_status status = released(logits, [&] {
      return fs_step_details(samplers_.data(), &logits, masks, threads, flags, tokens, details);
    });
    for (size_t i = 0; status == FS_OK && i < held_.size(); ++i)
      if (tokens[i] >= 0) held_[i]->drew();
    return status;
  }

 private:
  std::vector<fs_sampler*> samplers_;
  std::vector<HeldSequence*> held_;
};

// Draws a token of each sequence from its row, with what `allowed`, (1 or B, words), allows, and
// writes what `details` has arrays for. False where the general path has to look at the arguments,
// and then nothing has moved.
bool step(const py::list& sequences, const py::array& rows, bool mark, py::array tokens,
          int threads, const py::object& allowed, int logprobs, const py::object& details) {
  const fs_logits logits = as_logits(rows);
  const auto count = py::ssize_t(sequences.size());
  if (logits.rows != count) misuse("sequences must be as many as rows");
  int64_t* out = as_buffer<int64_t>(tokens, count, 'i', "tokens must be int64 of length B");
  if (!tokens.writeable()) misuse("tokens must be writeable");
  Stepped stepped;
  if (!stepped.take(sequences.ptr())) return false;
  fs_masks masks{};
  masks.struct_size = sizeof masks;
  if (!allowed.is_none()) {
    constexpr const char* kWhat = "allowed must be uint32 of shape (1, n) or (B, n)";
    const auto words = allowed.cast<py::array>();
    if (words.ndim() != 2 || (words.shape(0) != 1 && words.shape(0) != count)) misuse(kWhat);
    masks.allowed = as_buffer<uint32_t>(words, words.size(), 'u', kWhat);
    masks.allowed_count = 32 * words.shape(1);
    masks.row_stride = words.shape(0) == 1 ? 0 : words.shape(1);
  }
  fs_details wanted{};
  const bool told = !details.is_none();
  if (told) wanted = as_details(details.cast<py::dict>(), logprobs, logits);
  const fs_status status = stepped.step(logits, &masks, threads, mark ? FS_MARK_BAD_ROWS : 0, out,
                                        told ? &wanted : nullptr);
  if (status == FS_NO_MEMORY) check(status);
  return status == FS_OK;
}

// step_quickly(sequences, rows) gives the tokens, or None: of a list, and an array without a copy.
PyObject* step_quickly(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 2) return refuse_count("step_quickly() takes sequences and rows");
  return without_exceptions([&]() -> PyObject* {
    fs_logits logits;
    Stepped stepped;
    if (!PyList_CheckExact(args[0]) || !as_whole(args[1], logits) || !stepped.take(args[0]) ||
        stepped.count() != logits.rows)
      Py_RETURN_NONE;
    py::array_t<int64_t> tokens(logits.rows);
    if (stepped.step(logits, nullptr, 0, 0, tokens.mutable_data(), nullptr) != FS_OK)
      Py_RETURN_NONE;
    return tokens.release().ptr();
  });
}

}  // namespace

void define_sequence(py::module_& m) {
  py::class_<Sequence>(m, "Sequence")
      .def(py::init(&make), py::arg("params"), py::arg("rules") = py::tuple())
      .def_property_readonly("draw", &Sequence::draw)
      .def_property_readonly("tell", &Sequence::tell)
      .def(
          "start",
          [](const Sequence& s, const py::object& ids, const py::object& prompt_length) {
            start(s.get(), ids, prompt_length);
          },
          py::arg("ids"), py::arg("prompt_length") = py::none())
      .def(
          "push", [](const Sequence& s, const py::object& ids) { push(s.get(), ids); },
          py::arg("ids"))
      .def("accept", &Sequence::accept, py::arg("ids"), py::arg("offset"))
      .def("pop", &Sequence::pop, py::arg("n"))
      .def("steps", &Sequence::steps)
      .def("seek", &Sequence::seek, py::arg("seed"), py::arg("offset"))
      .def_property(
          "keeps", [](const Sequence& s) { return s.held().keeps.load(); },
          [](const Sequence& s, bool keeps) { s.held().keeps = keeps; })
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
  m.def("step", &step, py::arg("sequences"), py::arg("rows"), py::arg("mark"), py::arg("tokens"),
        py::arg("threads") = 0, py::arg("allowed") = py::none(), py::arg("logprobs") = 0,
        py::arg("details") = py::none());
  m.attr("step_quickly") = make_function(method_of<step_quickly>("step_quickly"), py::none());
}

}  // namespace fastsample::bindings
