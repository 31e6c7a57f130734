// Counter-based uniforms: Philox4x64-10 (Salmon et al., SC 2011), addressed as NumPy addresses it.
#pragma once

#include <cstdint>

namespace fastsample {

inline uint64_t multiply_high(uint64_t a, uint64_t b) {
#if defined(__SIZEOF_INT128__)
  __extension__ using Wide = unsigned __int128;
  return uint64_t(Wide(a) * b >> 64);
#else
  const uint64_t a0 = uint32_t(a), a1 = a >> 32, b0 = uint32_t(b), b1 = b >> 32;
  const uint64_t mid = a1 * b0 + (a0 * b0 >> 32);
  const uint64_t mid2 = a0 * b1 + uint32_t(mid);
  return a1 * b1 + (mid >> 32) + (mid2 >> 32);
#endif
}

// The first 64-bit word that NumPy's Philox(key=[seed, stream], counter=[offset, use, 0, 0]) gives.
inline uint64_t philox(uint64_t seed, uint64_t stream, uint64_t offset, uint64_t use) {
  // NumPy increments before it generates; the carry goes into the next word.
  uint64_t c0 = offset + 1, c1 = use + (c0 == 0), c2 = use == ~uint64_t(0) && c0 == 0, c3 = 0;
  uint64_t k0 = seed, k1 = stream;
  for (int round = 0; round < 10; ++round) {
    constexpr uint64_t kM0 = 0xD2E7470EE14C6C93u, kM1 = 0xCA5A826395121157u;
    const uint64_t hi0 = multiply_high(kM0, c0), lo0 = kM0 * c0;
    const uint64_t hi1 = multiply_high(kM1, c2), lo1 = kM1 * c2;
    c0 = hi1 ^ c1 ^ k0;
    c1 = lo1;
    c2 = hi0 ^ c3 ^ k1;
    c3 = lo0;
    k0 += 0x9E3779B97F4A7C15u;
    k1 += 0xBB67AE8584CAA73Bu;
  }
  return c0;
}

// What uniforms are for; the second word of the counter keeps uses apart.
enum Use : uint64_t { kToken = 0, kCoin = 1, kAccepted = 2, kRefused = 3 };

inline double uniform(uint64_t seed, uint64_t stream, uint64_t offset, uint64_t use = kToken) {
  return double(philox(seed, stream, offset, use) >> 11) * 0x1p-53;
}

}  // namespace fastsample
