// The primitives of kernels.h that know of masks; a part of kernels.inl.

// 1 for each byte that is not 0.
constexpr uint64_t kOnes = 0x0101010101010101u;
inline uint64_t nonzero_bytes(uint64_t v) {
  constexpr uint64_t kLow = 0x7f * kOnes;
  return (((v & kLow) + kLow) | v) >> 7 & kOnes;
}

void take_mask(const uint32_t* from, size_t blocks, uint32_t* to, uint8_t* states, uint64_t* used) {
  constexpr size_t kTogether = kMaskedTogether, kPart = kTogether * kMaskWords;
  static_assert(kPart == 64, "a bit for each word");
  uint32_t padded[kPart] = {};
  for (size_t b = 0; b < blocks; b += kTogether) {
    const uint32_t* words = from + b * kMaskWords;
    if (blocks - b < kTogether) {
      memcpy(padded, words, (blocks - b) * kMaskWords * sizeof *words);
      words = padded;
    }
    uint64_t some, gaps;
    Vec::copy_words(words, to + b * kMaskWords, some, gaps);
    used[b / kTogether] = some;
    const uint64_t state = 2 * kOnes - nonzero_bytes(some) - (nonzero_bytes(gaps) ^ kOnes);
    for (size_t i = 0; i < kTogether; ++i) states[b + i] = uint8_t(state >> 8 * i);
  }
}

size_t list_words(const uint64_t* used, size_t count, size_t limit, int32_t* words) {
  size_t total = 0;
  for (size_t i = 0; i < count; ++i) total += Vec::popcount(used[i]);
  if (total > limit) return total;
  for (size_t i = 0; i < count; ++i)
    if (used[i]) words += write_bits(used[i], Vec::popcount(used[i]), int32_t(64 * i), words);
  return total;
}

size_t count_allowed(const uint32_t* allowed, const int32_t* words, size_t count) {
  size_t total = 0;
  for (size_t i = 0; i < count; ++i) total += Vec::popcount(allowed[words[i]]);
  return total;
}

// The bits of a block from a place in its first vector on.
struct BlockBits {
  static constexpr int kLast = kBlock / 64 - 1;
  uint64_t word[kLast + 1];

  BlockBits(const uint32_t* words, size_t first) {
    memcpy(word, words, sizeof word);
    // By two shifts, of which none is of 64.
    FASTSAMPLE_UNROLL
    for (int j = 0; j < kLast; ++j) word[j] = word[j] >> first | word[j + 1] << 1 << (63 - first);
    word[kLast] >>= first;
  }
  // Those of vector i, from there on, and more above.
  uint32_t of(int i) const { return uint32_t(word[i * kWidth / 64] >> i * kWidth % 64); }
};

template <class Type>
FASTSAMPLE_FLATTEN ScanResult scan_allowed(const void* row, const uint32_t* allowed,
                                           const uint8_t* states, size_t first, size_t last,
                                           float* block_max) {
  using T = typename Type::T;
  float row_max = -INFINITY, lowest_max = INFINITY;
  F sum[4] = {Vec::set1(0.0f), Vec::set1(0.0f), Vec::set1(0.0f), Vec::set1(0.0f)};
  for (size_t b = first; b < last; ++b) {
    if (states[b] == kNoneOfIt) {
      block_max[b] = lowest_max = -INFINITY;
      continue;
    }
    const T* p = static_cast<const T*>(row) + b * kBlock;
    const uint32_t* words = allowed + b * kMaskWords;
    F max[4];
    FASTSAMPLE_UNROLL
    for (int u = 0; u < 4; ++u) max[u] = Vec::set1(-INFINITY);
    const auto take = [&](int u, uint32_t mask, const T* at) {
      Vec::take(mask, Type::load(at), max[u % 4], sum[u % 4]);
    };
    // As for_aligned has them.
    const size_t head = places_before_aligned(p, kWidth);
    const BlockBits bits(words, head);
    take(0, words[0], p);
    take(1, words[kMaskWords - 1] >> (32 - kWidth), p + kBlock - kWidth);
    FASTSAMPLE_UNROLL
    for (int k = 0; k < kVectors - 1; ++k) take(k, bits.of(k), p + head + k * kWidth);
    block_max[b] = Vec::hmax(Vec::max(Vec::max(max[0], max[1]), Vec::max(max[2], max[3])));
    if (block_max[b] > row_max) row_max = block_max[b];
    if (block_max[b] < lowest_max) lowest_max = block_max[b];
  }
  const F total = Vec::add(Vec::add(sum[0], sum[1]), Vec::add(sum[2], sum[3]));
  return {row_max, lowest_max, Vec::any_nan(total)};
}

// Writes the maxima of the blocks that listed values are in. Of each value and those behind it in
// its block, twice as many with each turn.
inline void write_maxima(const int32_t* ids, const float* x, size_t n, float* block_max) {
  float memory[2][kFewAllowed];
  const float* own = x;
  for (size_t d = 1; d < n; d *= 2) {
    float* __restrict to = memory[own == memory[0]];
    int32_t near = 0;
    for (size_t i = 0; i + d < n; ++i) {
      const bool same = (ids[i] ^ ids[i + d]) < kBlock;
      const float other = same ? own[i + d] : -INFINITY;
      to[i] = other > own[i] ? other : own[i];
      near |= int32_t(same);
    }
    if (!near) break;
    memcpy(to + n - d, own + n - d, d * sizeof *to);
    own = to;
  }
  for (size_t i = n; i-- > 0;)
    block_max[ids[i] / kBlock] = own[i];  // that of its first is the last
}

template <class Type>
FASTSAMPLE_FLATTEN ScanResult list_allowed(const Scanned& row, const uint32_t* allowed,
                                           const int32_t* words, size_t count, float* block_max,
                                           Listed* list) {
  int32_t* ids = list->ids + list->size;
  float* x = list->x + list->size;
  size_t n = 0;
  for (size_t i = 0; i < count; ++i) {
    uint32_t word = allowed[words[i]];
    do ids[n++] = 32 * words[i] + lowest_bit(word);
    while (word &= word - 1);
  }
  gather<Type>(static_cast<const typename Type::T*>(row.data), row.first, ids, n, x);
  write_maxima(ids, x, n, block_max);
  F max = Vec::set1(-INFINITY), lowest = Vec::set1(INFINITY), sum = Vec::set1(0.0f);
  for (size_t i = 0; i < n; i += kWidth) {
    const uint32_t mask = n - i < size_t(kWidth) ? (1u << (n - i)) - 1 : ~0u;
    const F v = Vec::load(x + i);
    Vec::take(mask, v, max, sum);
    lowest = Vec::min(lowest, Vec::where(mask, v, lowest));
  }
  list->size += n;
  return {Vec::hmax(max), Vec::hmin(lowest), Vec::any_nan(sum)};
}
