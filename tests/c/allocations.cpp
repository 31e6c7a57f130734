// What a call allocates: nothing once its thread is warm; how much a thread holds at most; and what
// becomes of a call where there is no memory.
//
// Whatever the library takes from the heap goes through the operators here.
// Prints a table of the bytes held at most by a first call: those "over" are beyond V/8 + 64 KiB,
// and those "OVER" beyond what a list of the kept tokens adds to that, too. With any argument, the
// table has every dtype. Ends with "N passed, 0 failed".
#include <fastsample.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "chains.h"

// ---- counting ---------------------------------------------------------------------------------

namespace {

// Of a thread that has switched it on.
struct Count {
  bool on = false;
  int64_t allocations = 0, held = 0, peak = 0;
};
thread_local Count count;

// From here on, so many allocations of all threads succeed and the others fail; < 0: none fails.
std::atomic<int> successes{-1};
constexpr int kNoFailure = -1;

bool fails() {
  int left = successes.load();
  while (left > 0 && !successes.compare_exchange_weak(left, left - 1)) {
  }
  return left == 0;
}

// What is handed out begins `header` bytes after what was taken; its size is at the start of these.
size_t header_of(size_t alignment) { return std::max(alignment, alignof(std::max_align_t)); }

void* allocate(size_t size, size_t alignment) {
  if (fails()) throw std::bad_alloc();
  const size_t header = header_of(alignment);
  void* start = std::aligned_alloc(header, (size + header + header - 1) / header * header);
  if (!start) throw std::bad_alloc();
  std::memcpy(start, &size, sizeof size);
  if (count.on) {
    ++count.allocations;
    count.held += int64_t(size);
    count.peak = std::max(count.peak, count.held);
  }
  return static_cast<char*>(start) + header;
}

void release(void* memory, size_t alignment) {
  if (!memory) return;
  void* start = static_cast<char*>(memory) - header_of(alignment);
  size_t size;
  std::memcpy(&size, start, sizeof size);
  if (count.on) count.held -= int64_t(size);
  std::free(start);
}

}  // namespace

// Those for arrays, too: a sanitizer's do not call the others.
void* operator new(size_t size) { return allocate(size, 1); }
void* operator new[](size_t size) { return allocate(size, 1); }
void* operator new(size_t size, const std::nothrow_t&) noexcept try {
  return allocate(size, 1);
} catch (const std::bad_alloc&) {
  return nullptr;
}
void operator delete(void* p, const std::nothrow_t&) noexcept { release(p, 1); }
void* operator new(size_t size, std::align_val_t a) { return allocate(size, size_t(a)); }
void* operator new[](size_t size, std::align_val_t a) { return allocate(size, size_t(a)); }
void operator delete(void* p) noexcept { release(p, 1); }
void operator delete[](void* p) noexcept { release(p, 1); }
void operator delete(void* p, size_t) noexcept { release(p, 1); }
void operator delete[](void* p, size_t) noexcept { release(p, 1); }
void operator delete(void* p, std::align_val_t a) noexcept { release(p, size_t(a)); }
void operator delete[](void* p, std::align_val_t a) noexcept { release(p, size_t(a)); }
void operator delete(void* p, size_t, std::align_val_t a) noexcept { release(p, size_t(a)); }
void operator delete[](void* p, size_t, std::align_val_t a) noexcept { release(p, size_t(a)); }

// ---- calls --------------------------------------------------------------------------------------

namespace {

int passed, failed;

void check(bool ok, const char* what, const char* where) {
  ok ? ++passed : ++failed;
  if (!ok) std::printf("FAILED %s: %s\n", where, what);
}

struct Work {
  const char* name;
  double temperature;
  int64_t top_k;
  double top_p, min_p;
};

constexpr Work kWorks[] = {
    {"greedy", 0.0, 0, 1.0, 0.0},     {"temperature", 0.8, 0, 1.0, 0.0},
    {"chain", 0.8, 50, 0.95, 0.0},    {"top_k=1000", 1.0, 1000, 1.0, 0.0},
    {"min_p", 0.8, 0, 1.0, 0.05},     {"top_p", 0.8, 0, 0.95, 0.0},
    {"top_p=.5", 1.0, 0, 0.5, 0.0},   {"top_k=20000", 1.0, 20000, 1.0, 0.0},
    {"min_p=1e-6", 1.0, 0, 1., 1e-6},
};

double normal(uint64_t i) {
  constexpr double kTau = 6.283185307179586;
  return std::sqrt(-2.0 * std::log1p(-fs_uniform(1, 0, i))) * std::cos(kTau * fs_uniform(1, 1, i));
}

struct Kind {
  const char* name;
  float (*value)(int64_t i, int64_t n);
};

constexpr float kMasked = -std::numeric_limits<float>::infinity();
constexpr Kind kKinds[] = {
    {"normal", [](int64_t i, int64_t) { return float(2.5 * normal(uint64_t(i))); }},
    {"flat", [](int64_t i, int64_t) { return float(0.1 * normal(uint64_t(i))); }},
    {"ascending", [](int64_t i, int64_t n) { return float(20.0 * double(i) / double(n)); }},
    {"constant", [](int64_t, int64_t) { return 1.0f; }},
    {"half masked",
     [](int64_t i, int64_t) { return i % 2 ? kMasked : float(normal(uint64_t(i))); }},
};

constexpr const char* kDtypes[] = {"float32", "float16", "bfloat16", "float64"};

// The bits of a float16 at or below x, where x is 0, masked or of a usual size.
uint16_t to_float16(uint32_t bits) {
  const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x7f800000) return uint16_t(sign | 0x7c00);
  return uint16_t(sign | (magnitude < 113u << 23 ? 0 : (magnitude >> 13) - (112u << 10)));
}

std::vector<char> as_dtype(const std::vector<float>& x, int dtype) {
  std::vector<char> bytes;
  const auto append = [&](auto value) {
    const char* start = reinterpret_cast<const char*>(&value);
    bytes.insert(bytes.end(), start, start + sizeof value);
  };
  for (float value : x) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (dtype == FS_FLOAT32) append(value);
    if (dtype == FS_FLOAT64) append(double(value));
    if (dtype == FS_BFLOAT16) append(uint16_t(bits >> 16));
    if (dtype == FS_FLOAT16) append(to_float16(bits));
  }
  return bytes;
}

Params params_of(const Work& work) {
  Params params = default_params();
  params.temperature = work.temperature;
  params.top_k = work.top_k;
  params.top_p = work.top_p;
  params.min_p = work.min_p;
  return params;
}

struct Measured {
  fs_status status;
  Count first, second;
};

// A first and a second call, each of a thread's own with fresh workspaces.
Measured measure(const fs_logits& logits, const Params& params) {
  Measured m;
  std::thread([&] {
    int64_t token;
    const double u = 0.7;
    fs_uniform(0, 0, 0);
    for (Count* c : {&m.first, &m.second}) {
      count = Count{};
      count.on = true;
      m.status = sample(&logits, &params, 1, &u, 1, 0, &token);
      count.on = false;
      *c = count;
    }
  }).join();
  return m;
}

int64_t kept(const fs_logits& logits, const Params& params) {
  std::vector<int64_t> ids(size_t(logits.vocab));
  std::vector<float> probs(size_t(logits.vocab));
  int64_t n = 0;
  survivors_of(&logits, &params, logits.vocab, ids.data(), probs.data(), &n);
  return n;
}

// The workspace of a row of V tokens, and of each token in a list: id, value, weight, and a quarter
// of that to grow into.
int64_t of_row(int64_t vocab) { return vocab / 8 + (64 << 10); }
constexpr int64_t kPerListed = (4 + 4 + 8) * 5 / 4;
// Lists may hold more tokens than are kept in the end, mostly where many logits are equal.
constexpr int64_t kListed = 4096, kListedPerKept = 13;

void print(const char* kind, int dtype, const char* work, int64_t vocab, int64_t n,
           const Count& first) {
  const int64_t limit = of_row(vocab);
  const char* over = first.peak <= limit                    ? ""
                     : first.peak <= limit + kPerListed * n ? " over"
                                                            : " OVER";
  std::printf("%8lld %-12s %-9s %-12s %8lld %8lld %8lld %8lld%s\n", static_cast<long long>(vocab),
              kind, kDtypes[dtype], work, static_cast<long long>(n),
              static_cast<long long>(first.peak), static_cast<long long>(first.held),
              static_cast<long long>(limit), over);
}

void test_row(const Kind& kind, const fs_logits& logits, bool table) {
  for (const Work& work : kWorks) {
    const Params params = params_of(work);
    const Measured m = measure(logits, params);
    const int64_t n = kept(logits, params);
    check(m.status == FS_OK, "a call fails", work.name);
    check(m.first.allocations > 0, "allocations are not counted", work.name);
    check(m.second.allocations == 0, "a warm call allocates", work.name);
    check(m.first.peak <= of_row(logits.vocab) + kPerListed * (kListed + kListedPerKept * n),
          "a first call takes too much", work.name);
    if (table) print(kind.name, logits.dtype, work.name, logits.vocab, n, m.first);
  }
}

// Whichever allocation of a call fails, on whichever of its threads: all tokens or none.
void test_no_memory() {
  constexpr int64_t kRows = 12, kVocab = 20000;
  std::vector<float> x;
  for (int64_t i = 0; i < kRows * kVocab; ++i) x.push_back(kKinds[0].value(i, kVocab));
  const fs_logits logits = {sizeof(fs_logits), x.data(), kRows, kVocab, kVocab, 0, FS_FLOAT32, 0};
  const std::vector<double> u(kRows, 0.7);
  const Params params = params_of({"top_p", 1.0, 0, 0.9, 0.0});
  std::vector<int64_t> expected(kRows);
  sample(&logits, &params, 1, u.data(), 1, 0, expected.data());

  const std::vector<int64_t> untouched(kRows, -7);
  for (int32_t threads : {1, 2, 5}) {
    std::string message;
    int refused = 0;
    fs_status last = FS_NO_MEMORY;
    for (int n = 0; n < 200; ++n) {
      std::vector<int64_t> tokens = untouched;
      std::thread([&] {  // whose workspaces are new
        successes = n;
        last = sample(&logits, &params, 1, u.data(), threads, 0, tokens.data());
        successes = kNoFailure;
        message = fs_last_error();
      })
          .join();
      refused += last == FS_NO_MEMORY;
      check(last == FS_OK || last == FS_NO_MEMORY, "another status", "no memory");
      check(message == (last == FS_OK ? "" : "out of memory"), message.c_str(), "no memory");
      check(tokens == (last == FS_OK ? expected : untouched), "other tokens", "no memory");
    }
    check(refused > 0 && last == FS_OK, "memory was not refused, or always", "no memory");
  }
}

// The same for probabilities, of rows that need more memory one after the other.
void test_no_memory_for_probs() {
  constexpr int64_t kRows = 3, kVocab = 20000;
  std::vector<float> x;
  for (int64_t i = 0; i < kRows * kVocab; ++i) x.push_back(kKinds[0].value(i, kVocab));
  const fs_logits logits = {sizeof(fs_logits), x.data(), kRows, kVocab, kVocab, 0, FS_FLOAT32, 0};
  const Params params[kRows] = {params_of({"greedy", 0.0, 0, 1.0, 0.0}),
                                params_of({"top_k", 1.0, 5000, 1.0, 0.0}),
                                params_of({"top_p", 1.0, 0, 0.9, 0.0})};
  const std::vector<float> untouched(kRows * kVocab, -7.0f);
  int refused = 0;
  fs_status last = FS_NO_MEMORY;
  for (int n = 0; n < 100; ++n) {
    std::vector<float> probs = untouched;
    std::thread([&] {
      successes = n;
      last = probs_of(&logits, params, kRows, probs.data());
      successes = kNoFailure;
    }).join();
    refused += last == FS_NO_MEMORY;
    check(last == FS_OK || last == FS_NO_MEMORY, "another status", "no memory for probabilities");
    check((probs == untouched) == (last != FS_OK), "half done", "no memory for probabilities");
  }
  check(refused > 0 && last == FS_OK, "memory was not refused, or always", "no memory for probs");
}

// ---- details, steps and drafts -----------------------------------------------------------------

// What a server calls, on the same rows: tokens go to `tokens`.
class Served {
 public:
  static constexpr int64_t kRows = 4, kTop = 20;
  explicit Served(int64_t vocab) {
    for (int64_t i = 0; i < kRows * vocab; ++i) x_.push_back(kKinds[0].value(i, vocab));
    logits_ = {sizeof(fs_logits), x_.data(), kRows, vocab, vocab, 0, FS_FLOAT32, 0};
    params_ = params_of({"top_p", 0.8, 0, 0.9, 0.0});
    chain_ = make_chain(&params_, stages_);
    fs_details_init(&details_, sizeof details_);
    details_.logprobs = FS_LOGPROBS_RAW;
    details_.logprob = logprob_;
    details_.rank = rank_;
    details_.top_count = std::min(kTop, vocab);
    details_.top_ids = top_ids_;
    details_.top_logprobs = top_logprobs_;
    support_.resize(size_t(kRows * vocab));
    details_.support = support_.data();
    details_.support_count = support_count_;
    details_.log_mass = log_mass_;
    words_.assign(size_t(vocab + 31) / 32, 0xf7f7f7f7u);
    fs_masks_init(&masks_, sizeof masks_);
    masks_.allowed = words_.data();
    masks_.allowed_count = vocab;
    fs_rule rule;
    fs_rule_init(&rule, sizeof rule, FS_RULE_REPETITION);
    rule.value[0] = 1.2;
    for (int64_t i = 0; i < kRows; ++i) {
      fs_draw_init(&draws_[i], sizeof draws_[i]);
      draws_[i].u = 0.7;
      draws_[i].allowed = words_.data();
      draws_[i].allowed_count = vocab;
      check(fs_sampler_new(&chain_, &rule, 1, 1, 0, 0, &samplers_[i]) == FS_OK, "no sampler", "");
      check(fs_sampler_push(samplers_[i], &kId, 1) == FS_OK, "no token", "");
    }
  }
  ~Served() {
    for (fs_sampler* sampler : samplers_) fs_sampler_free(sampler);
  }
  Served(const Served&) = delete;
  Served& operator=(const Served&) = delete;

  fs_status tell(int32_t threads, int64_t* tokens) {
    return fs_sample_details(&logits_, &chain_, 1, draws_, threads, 0, tokens, &details_);
  }
  // Always the same step, from a history that has room for it.
  fs_status step(int32_t threads, int64_t* tokens) {
    const fs_status status =
        fs_step_details(samplers_, &logits_, &masks_, threads, 0, tokens, &details_);
    if (status != FS_OK) return status;
    successes = kNoFailure;
    count.on = false;
    for (fs_sampler* sampler : samplers_)
      check(fs_sampler_rollback(sampler, 1) == FS_OK, "no roll-back", "step");
    return status;
  }
  template <int32_t kMethod, bool kOnehot>
  fs_status verify(int32_t, int64_t* tokens) {
    const int64_t drafted[kRows] = {1, 2, 3, 4};
    fs_logits less = logits_;
    less.rows = kRows - 1;
    const fs_source target = {sizeof target, &logits_, &chain_, 1, draws_};
    const fs_source draft = {sizeof draft, &less, &chain_, 1, nullptr};
    fs_drafts drafts;
    fs_drafts_init(&drafts, sizeof drafts);
    drafts.count = kRows - 1;
    drafts.tokens = drafted;
    drafts.target = &target;
    drafts.draft = kOnehot ? nullptr : &draft;
    int64_t accepted;
    return fs_verify(&drafts, 1, kMethod, kRows, tokens, &accepted);
  }

 private:
  static constexpr int32_t kId = 5;
  std::vector<float> x_;
  fs_logits logits_;
  Params params_;
  fs_stage stages_[kStages];
  fs_chain chain_;
  fs_details details_;
  fs_masks masks_;
  fs_draw draws_[kRows];
  fs_sampler* samplers_[kRows];
  std::vector<uint32_t> words_;
  std::vector<int32_t> support_;
  float logprob_[kRows], top_logprobs_[kRows * kTop];
  int32_t top_ids_[kRows * kTop];
  int64_t rank_[kRows], support_count_[kRows];
  double log_mass_[kRows];
};

struct ServedCall {
  const char* name;
  fs_status (Served::*run)(int32_t threads, int64_t* tokens);
};

constexpr ServedCall kServedCalls[] = {
    {"details", &Served::tell},
    {"step", &Served::step},
    {"drafts of a look-up", &Served::verify<FS_VERIFY_TOKEN, true>},
    {"drafts", &Served::verify<FS_VERIFY_TOKEN, false>},
    {"exact drafts", &Served::verify<FS_VERIFY_EXACT, true>},
    {"drafts of a block", &Served::verify<FS_VERIFY_BLOCK, false>},
};

void test_served(int64_t vocab) {
  Served served(vocab);
  for (const ServedCall& call : kServedCalls)
    std::thread([&] {
      int64_t tokens[Served::kRows];
      fs_uniform(0, 0, 0);
      for (const bool warm : {false, true}) {
        count = Count{};
        count.on = true;
        const fs_status status = (served.*call.run)(1, tokens);
        count.on = false;
        check(status == FS_OK, "a call fails", call.name);
        check(warm == (count.allocations == 0), "a warm call allocates, or none does", call.name);
      }
    }).join();
}

void test_no_memory_for_what_is_served() {
  using Tokens = std::vector<int64_t>;
  Served served(20000);
  const Tokens untouched(Served::kRows, -7);
  for (const ServedCall& call : kServedCalls)
    for (int32_t threads : {1, 3}) {
      Tokens expected = untouched;
      check((served.*call.run)(threads, expected.data()) == FS_OK, "a call fails", call.name);
      int refused = 0;
      fs_status last = FS_NO_MEMORY;
      for (int n = 0; n < 120; ++n) {
        Tokens tokens = untouched;
        std::thread([&] {
          successes = n;
          last = (served.*call.run)(threads, tokens.data());
          successes = kNoFailure;
        }).join();
        refused += last == FS_NO_MEMORY;
        check(last == FS_OK || last == FS_NO_MEMORY, "another status", call.name);
        check(tokens == (last == FS_OK ? expected : untouched), "other tokens", call.name);
      }
      check(refused > 0 && last == FS_OK, "memory was not refused, or always", call.name);
    }
}

}  // namespace

int main(int argc, char**) {
  std::printf("%8s %-12s %-9s %-12s %8s %8s %8s %8s\n", "V", "row", "dtype", "work", "kept", "peak",
              "retained", "limit");
  for (int64_t vocab : {16, 32000, 128256, 500000})
    for (const Kind& kind : kKinds) {
      std::vector<float> x;
      for (int64_t i = 0; i < vocab; ++i) x.push_back(kind.value(i, vocab));
      for (int dtype = FS_FLOAT32; dtype <= FS_FLOAT64; ++dtype) {
        const std::vector<char> data = as_dtype(x, dtype);
        const fs_logits logits = {sizeof(fs_logits), data.data(), 1, vocab, vocab, 0, dtype, 0};
        test_row(kind, logits, argc > 1 || dtype == FS_FLOAT32);
      }
    }
  test_no_memory();
  test_no_memory_for_probs();
  for (int64_t vocab : {16, 32000, 128256}) test_served(vocab);
  test_no_memory_for_what_is_served();
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
