// Verification of one sequence's drafts.
#include <memory>

#include "bindings/module.h"
#include "bindings/quick.h"

namespace fastsample::bindings {

namespace {

// A `Side` of fastsample/reference/verification.py: rows, params and inputs.
class Source {
 public:
  explicit Source(const py::tuple& side)
      : rows_(side[0].cast<py::array>()),
        params_(side[1].cast<py::array>()),
        inputs_(side[2].cast<py::dict>()),
        logits_(as_logits(rows_)),
        chains_(params_),
        draws_(py::reinterpret_borrow<py::kwargs>(inputs_), logits_.rows) {
    source_ = {sizeof source_, &logits_, chains_.get(), chains_.count(), draws_.get()};
  }
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;
  const fs_source* get() const { return &source_; }

 private:
  const py::array rows_, params_;
  const py::dict inputs_;
  const fs_logits logits_;
  const Chains chains_;
  const Draws draws_;
  fs_source source_{};
};

int64_t verify(const py::array& tokens, const py::tuple& target, const py::object& draft,
               int method, const py::tuple& key, py::array out) {
  fs_drafts drafts{};
  drafts.struct_size = sizeof drafts;
  drafts.count = tokens.size();
  drafts.tokens = as_buffer<int64_t>(tokens, drafts.count, 'i', "tokens must be int64");
  const Source of_target(target);
  drafts.target = of_target.get();
  std::unique_ptr<Source> of_draft;
  py::array ids, weights, offsets;
  if (py::hasattr(draft, "offsets")) {
    ids = draft.attr("ids").cast<py::array>();
    weights = draft.attr("weights").cast<py::array>();
    offsets = draft.attr("offsets").cast<py::array>();
    drafts.offsets = as_buffer<int64_t>(offsets, drafts.count + 1, 'i', "offsets must be int64");
    for (int64_t i = 0; i < drafts.count; ++i)
      if (drafts.offsets[i] < 0 || drafts.offsets[i + 1] < drafts.offsets[i])
        misuse("offsets must rise from 0");
    const int64_t count = drafts.offsets[drafts.count];
    drafts.ids = as_buffer<int32_t>(ids, count, 'i', "ids must be int32");
    drafts.weights = as_buffer<double>(weights, count, 'f', "weights must be float64");
  } else if (!draft.is_none()) {
    of_draft = std::make_unique<Source>(draft.cast<py::tuple>());
    drafts.draft = of_draft->get();
  }
  drafts.seed = key[0].cast<uint64_t>();
  drafts.stream = key[1].cast<uint64_t>();
  drafts.offset = key[2].cast<uint64_t>();
  int64_t* to = as_buffer<int64_t>(out, drafts.count + 1, 'i', "out must be int64 of length K + 1");
  if (!out.writeable()) misuse("out must be writeable");
  int64_t accepted = 0;
  fs_status status;
  {
    py::gil_scoped_release release;
    status = fs_verify(&drafts, 1, method, drafts.count + 1, to, &accepted);
  }
  check(status);
  return accepted;
}

// Drafts out of a list of ints or an int64 array; false where the general path has to look.
bool as_drafts(PyObject* given, std::vector<int64_t>& tokens) {
  if (PyList_CheckExact(given)) {
    // What another thread does to the list meanwhile, where there is no GIL, does not matter then.
    const auto items = py::reinterpret_steal<py::tuple>(PyList_AsTuple(given));
    if (!items) throw py::error_already_set();
    tokens.resize(items.size());
    for (size_t i = 0; i < tokens.size(); ++i) {
      uint64_t word;
      if (!word_of(PyTuple_GET_ITEM(items.ptr(), Py_ssize_t(i)), word) || word >= FS_MAX_VOCAB)
        return false;
      tokens[i] = int64_t(word);
    }
    return true;
  }
  const int64_t* data;
  py::ssize_t count;
  if (!as_int64(given, data, count)) return false;
  tokens.assign(data, data + count);
  return true;
}

// verify_quickly(tokens, target, params, draft, draft_params, method, seed, offset) gives tokens
// and how many are accepted, or None: of arrays without a copy, one chain each, and a draft that is
// None for the tokens themselves.
PyObject* verify_quickly(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 8) return refuse_count("verify_quickly() takes 8 arguments");
  return without_exceptions([&]() -> PyObject* {
    std::vector<int64_t> tokens;
    fs_logits of_target, of_draft;
    fs_drafts drafts{};
    uint64_t method;
    const bool dense = args[3] != Py_None;
    if (!as_drafts(args[0], tokens) || !as_whole(args[1], of_target) ||
        (dense && !as_whole(args[3], of_draft)) || !py::isinstance<py::array>(args[2]) ||
        !py::isinstance<py::array>(args[4]) || !word_of(args[5], method) ||
        !word_of(args[6], drafts.seed) || !word_of(args[7], drafts.offset) ||
        drafts.offset > UINT64_MAX - tokens.size() || of_target.rows != int64_t(tokens.size()) + 1)
      Py_RETURN_NONE;
    const Chains chains(py::reinterpret_borrow<py::array>(args[2]));
    const Chains draft_chains(py::reinterpret_borrow<py::array>(args[4]));
    const fs_source target = {sizeof target, &of_target, chains.get(), chains.count(), nullptr};
    const fs_source draft = {sizeof draft, &of_draft, draft_chains.get(), draft_chains.count(),
                             nullptr};
    drafts.struct_size = sizeof drafts;
    drafts.count = int64_t(tokens.size());
    drafts.tokens = tokens.data();
    drafts.target = &target;
    if (dense) drafts.draft = &draft;
    py::array_t<int64_t> out(of_target.rows);
    int64_t* to = out.mutable_data();
    int64_t accepted = 0;
    const fs_status status = released(of_target, [&] {
      return fs_verify(&drafts, 1, int32_t(method), of_target.rows, to, &accepted);
    });
    if (status != FS_OK) Py_RETURN_NONE;
    return py::make_tuple(std::move(out), accepted).release().ptr();
  });
}

}  // namespace

void define_verification(py::module_& m) {
  m.def("verify", &verify, py::arg("tokens"), py::arg("target"), py::arg("draft"),
        py::arg("method"), py::arg("key"), py::arg("out"));
  m.attr("verify_quickly") = make_function(method_of<verify_quickly>("verify_quickly"), py::none());
}

}  // namespace fastsample::bindings
