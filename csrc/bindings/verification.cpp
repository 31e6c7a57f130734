// Verification of one sequence's drafts.
#include <memory>

#include "bindings/module.h"

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

}  // namespace

void define_verification(py::module_& m) {
  m.def("verify", &verify, py::arg("tokens"), py::arg("target"), py::arg("draft"),
        py::arg("method"), py::arg("key"), py::arg("out"));
}

}  // namespace fastsample::bindings
