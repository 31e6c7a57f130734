// The only file that knows all instruction sets: detect, list, force.
#include "dispatch.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__) || defined(_M_X64)
#define FASTSAMPLE_X86 1
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

namespace fastsample {

namespace scalar {
extern const Kernels kernels;
}
#if defined(FASTSAMPLE_X86)
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
#elif defined(FASTSAMPLE_NEON)
namespace neon {
extern const Kernels kernels;
}
#endif

namespace {

#if defined(FASTSAMPLE_X86)
struct Registers {
  uint32_t a, b, c, d;
};

Registers cpuid(uint32_t leaf) {
  Registers r{};
#if defined(_MSC_VER)
  int out[4];
  __cpuid(out, 0);
  if (uint32_t(out[0]) < leaf) return r;
  __cpuidex(out, int(leaf), 0);
  r = {uint32_t(out[0]), uint32_t(out[1]), uint32_t(out[2]), uint32_t(out[3])};
#else
  if (unsigned(__get_cpuid_max(0, nullptr)) >= leaf) __cpuid_count(leaf, 0, r.a, r.b, r.c, r.d);
#endif
  return r;
}

// Register state that the operating system saves; a CPU flag alone does not say that it does.
uint64_t xgetbv() {
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t(high) << 32 | low;
#endif
}

constexpr bool has_all(uint64_t value, uint64_t bits) { return (value & bits) == bits; }

bool runs_avx2() {
  const Registers one = cpuid(1), seven = cpuid(7);
  constexpr uint32_t kPopcnt = 1u << 23, kOsxsave = 1u << 27, kAvx = 1u << 28, kF16c = 1u << 29,
                     kFma = 1u << 12, kAvx2 = 1u << 5;
  return has_all(one.c, kOsxsave | kAvx | kF16c | kFma | kPopcnt) && has_all(seven.b, kAvx2) &&
         has_all(xgetbv(), 0x6);  // XMM, YMM
}

bool runs_avx512() {
  constexpr uint32_t kF = 1u << 16, kDq = 1u << 17, kBw = 1u << 30, kVl = 1u << 31;
  return runs_avx2() && has_all(cpuid(7).b, kF | kDq | kBw | kVl) &&
         has_all(xgetbv(), 0xe6);  // and opmask, ZMM
}
#endif

bool always() { return true; }

struct Isa {
  const Kernels* kernels;
  bool (*runs)();
};

// Best first.
constexpr Isa kIsas[] = {
#if defined(FASTSAMPLE_X86)
    {&avx512::kernels, runs_avx512},
    {&avx2::kernels, runs_avx2},
#elif defined(FASTSAMPLE_NEON)
    {&neon::kernels, always},
#endif
    {&scalar::kernels, always},
};

const Kernels* find(const char* name) {
  for (const Isa& isa : kIsas)
    if (std::strcmp(isa.kernels->isa, name) == 0 && isa.runs()) return isa.kernels;
  return nullptr;
}

std::string must_be_supported(const char* what, const char* name) {
  return std::string(what) + " must be one of " + supported_isas() + " on this machine, got " +
         name;
}

std::atomic<const Kernels*> active{nullptr};

}  // namespace

const char* supported_isas() {
  static const std::string names = [] {
    std::string list;
    for (const Isa& isa : kIsas)
      if (isa.runs()) list += (list.empty() ? "" : ",") + std::string(isa.kernels->isa);
    return list;
  }();
  return names.c_str();
}

const Kernels* active_kernels() {
  const Kernels* kernels = active.load(std::memory_order_relaxed);
  if (kernels) return kernels;
  const char* wanted = std::getenv("FASTSAMPLE_ISA");
  if (wanted && *wanted) {
    kernels = find(wanted);
  } else {
    for (const Isa& isa : kIsas)
      if (!kernels && isa.runs()) kernels = isa.kernels;
  }
  // Unless another thread was first, maybe to force one.
  const Kernels* before = nullptr;
  if (active.compare_exchange_strong(before, kernels)) return kernels;
  return before;
}

std::string isa_error() {
  const char* wanted = std::getenv("FASTSAMPLE_ISA");
  return must_be_supported("FASTSAMPLE_ISA", wanted ? wanted : "");
}

std::string force_isa(const char* name) {
  const Kernels* kernels = find(name);
  if (!kernels) return must_be_supported("isa", name);
  active.store(kernels, std::memory_order_relaxed);
  return {};
}

}  // namespace fastsample
