// History: tokens and rules, and the edits that come of them; and what other objects that are
// sequences share with it.
#include <limits>
#include <string>

#include "bindings/module.h"
#include "bindings/sequence.h"

namespace fastsample::bindings {

namespace {

// A one-dimensional array of one type, which is converted where it is another.
template <class T>
py::array_t<T> as_list(const py::handle& values) {
  constexpr int kFlags = py::array::c_style | py::array::forcecast;
  auto array = py::array_t<T, kFlags>::ensure(values);
  if (!array) throw py::error_already_set();
  if (array.ndim() != 1) misuse("lists of a rule must be one-dimensional");
  return array;
}

// Ids that may be of any integer type.
std::vector<int32_t> as_ids(const py::handle& values) {
  const auto wide = as_list<int64_t>(values);
  std::vector<int32_t> ids(size_t(wide.size()));
  for (py::ssize_t i = 0; i < wide.size(); ++i) {
    const int64_t id = wide.at(i);
    if (id < 0 || id > std::numeric_limits<int32_t>::max())
      throw py::value_error("token ids must be from 0 to 2147483647, got " + std::to_string(id));
    ids[size_t(i)] = int32_t(id);
  }
  return ids;
}

// Rules, and the lists that they point to.
class Rules {
 public:
  explicit Rules(const py::iterable& tuples) {
    for (const py::handle& item : tuples) {
      const auto tuple = item.cast<py::tuple>();
      if (tuple.size() != 5) misuse("a rule is (name, numbers, ids, offsets, weights)");
      add(tuple);
    }
    for (size_t i = 0; i < rules_.size(); ++i) {
      const Lists& lists = lists_[i];
      rules_[i].ids = lists.ids.empty() ? nullptr : lists.ids.data();
      rules_[i].offsets = lists.offsets.empty() ? nullptr : lists.offsets.data();
      rules_[i].weights = lists.weights.empty() ? nullptr : lists.weights.data();
    }
  }
  const fs_rule* get() const { return rules_.data(); }
  int64_t count() const { return int64_t(rules_.size()); }

 private:
  struct Lists {
    std::vector<int32_t> ids;
    std::vector<int64_t> offsets;
    std::vector<double> weights;
  };

  void add(const py::tuple& tuple) {
    const auto name = tuple[0].cast<std::string>();
    fs_rule rule;
    fs_rule_init(&rule, sizeof rule, fs_rule_kind_of(name.c_str()));
    if (rule.kind == 0) throw py::value_error("unknown rule " + name);
    const std::vector<double> numbers = vector_of<double>(tuple[1]);
    if (numbers.size() > 4) misuse("a rule has at most four numbers");
    std::copy(numbers.begin(), numbers.end(), rule.value);
    Lists lists{as_ids(tuple[2]), vector_of<int64_t>(tuple[3]), vector_of<double>(tuple[4])};
    if (rule.kind == FS_RULE_SEQUENCE_BIAS) {
      take_sequences(lists, rule);
    } else {
      // Lists of single ids have no offsets, or those of sequences of one id each.
      for (size_t i = 0; i < lists.offsets.size(); ++i)
        if (lists.offsets[i] != int64_t(i) || lists.offsets.size() != lists.ids.size() + 1)
          misuse("a rule without sequences has a list of single ids");
      lists.offsets.clear();
      rule.count = int64_t(lists.ids.size());
      if (rule.kind == FS_RULE_BIAS && lists.weights.size() != lists.ids.size())
        misuse("a bias has a weight for each id");
    }
    rules_.push_back(rule);
    lists_.push_back(std::move(lists));
  }
  static void take_sequences(Lists& lists, fs_rule& rule) {
    rule.count = int64_t(lists.weights.size());
    const bool whole = lists.offsets.size() == lists.weights.size() + 1 && lists.offsets[0] == 0 &&
                       lists.offsets.back() == int64_t(lists.ids.size());
    if (rule.count && !whole) misuse("a sequence bias has a weight for each of its sequences");
    if (!rule.count) lists = {};
  }
  template <class T>
  static std::vector<T> vector_of(const py::handle& values) {
    const auto array = as_list<T>(values);
    return std::vector<T>(array.data(), array.data() + array.size());
  }

  std::vector<fs_rule> rules_;
  std::vector<Lists> lists_;
};

class History {
 public:
  explicit History(const py::iterable& rules)
      : sampler_(new_sampler({sizeof(fs_chain), nullptr, 0, 1}, rules)) {}
  fs_sampler* get() const { return sampler_.get(); }

 private:
  Sampler sampler_;
};

}  // namespace

fs_sampler* past_of(const py::handle& history) {
  return history.is_none() ? nullptr : history.cast<const History&>().get();
}

Sampler new_sampler(const fs_chain& chain, const py::iterable& rules) {
  const Rules taken(rules);
  fs_sampler* made = nullptr;
  check(fs_sampler_new(&chain, taken.get(), taken.count(), 0, 0, 0, &made));
  return Sampler(made, fs_sampler_free);
}

void start(fs_sampler* sampler, const py::object& ids, const py::object& prompt_length) {
  const std::vector<int32_t> list = as_ids(ids);
  const auto count = int64_t(list.size());
  const int64_t prompt = prompt_length.is_none() ? count : prompt_length.cast<int64_t>();
  check(fs_sampler_start(sampler, list.data(), count, prompt));
}

void push(fs_sampler* sampler, const py::object& ids) {
  const std::vector<int32_t> list = as_ids(ids);
  check(fs_sampler_push(sampler, list.data(), int64_t(list.size())));
}

void accept(fs_sampler* sampler, const py::object& ids) {
  const std::vector<int32_t> list = as_ids(ids);
  check(fs_sampler_accept(sampler, list.data(), int64_t(list.size())));
}

fs_sampler_info info_of(const fs_sampler* sampler) {
  fs_sampler_info info{};
  info.struct_size = sizeof info;
  check(fs_sampler_get(sampler, &info, nullptr, 0));
  return info;
}

py::array_t<int64_t> tokens_of(const fs_sampler* sampler) {
  std::vector<int32_t> ids(size_t(info_of(sampler).history_length));
  check(fs_sampler_get(sampler, nullptr, ids.data(), int64_t(ids.size())));
  py::array_t<int64_t> out(py::ssize_t(ids.size()));
  std::copy(ids.begin(), ids.end(), out.mutable_data());
  return out;
}

py::array edits_of(fs_sampler* sampler, int64_t vocab) {
  int64_t count = 0;
  if (fs_sampler_edits(sampler, vocab, nullptr, 0, &count) != FS_OK && count == 0)
    check(FS_INVALID_ARGUMENT);
  static const py::handle type =
      py::module_::import("fastsample.records").attr("EDIT").cast<py::dtype>().release();
  py::array out(py::reinterpret_borrow<py::dtype>(type), count);
  auto* edits = static_cast<fs_edit*>(out.mutable_data());
  check(fs_sampler_edits(sampler, vocab, edits, count, &count));
  return out;
}

void define_history(py::module_& m) {
  py::class_<History>(m, "History")
      .def(py::init<const py::iterable&>(), py::arg("rules") = py::tuple())
      .def(
          "start",
          [](const History& h, const py::object& ids, const py::object& prompt_length) {
            start(h.get(), ids, prompt_length);
          },
          py::arg("ids"), py::arg("prompt_length") = py::none())
      .def(
          "push", [](const History& h, const py::object& ids) { push(h.get(), ids); },
          py::arg("ids"))
      .def(
          "pop", [](const History& h, int64_t n) { check(fs_sampler_rollback(h.get(), n)); },
          py::arg("n"))
      .def("__len__", [](const History& h) { return info_of(h.get()).history_length; })
      .def_property_readonly("prompt_length",
                             [](const History& h) { return info_of(h.get()).prompt_length; })
      .def("tokens", [](const History& h) { return tokens_of(h.get()); })
      .def(
          "edits", [](const History& h, int64_t vocab) { return edits_of(h.get(), vocab); },
          py::arg("vocab"));
}

}  // namespace fastsample::bindings
