// The primitives of kernels.h that know of masks; a part of kernels.inl.

constexpr int kWords = kBlock / 32;  // of a mask, to a block

// 1 for each byte that is not 0.
constexpr uint64_t kOnes = 0x0101010101010101u;
inline uint64_t nonzero_bytes(uint64_t v) {
  constexpr uint64_t kLow = 0x7f * kOnes;
  return (((v & kLow) + kLow) | v) >> 7 & kOnes;
}

size_t take_mask(const uint32_t* from, size_t blocks, uint32_t* to, uint8_t* states,
                 int32_t* used) {
  constexpr size_t kTogether = kMaskedTogether, kPart = kTogether * kWords;
  constexpr uint64_t kGather = 0x0102040810204080u;  // the lowest bits of bytes, in the highest
  size_t count = 0;
  uint32_t padded[kPart] = {};
  for (size_t b = 0; b < blocks; b += kTogether) {
    const uint32_t* words = from + b * kWords;
    if (blocks - b < kTogether) {
      memcpy(padded, words, (blocks - b) * kWords * sizeof *words);
      words = padded;
    }
    uint64_t some, gaps;
    Vec::copy_words(words, to + b * kWords, some, gaps);
    some = nonzero_bytes(some);
    const uint64_t all = nonzero_bytes(gaps) ^ kOnes, state = 2 * kOnes - some - all;
    for (size_t i = 0; i < kTogether; ++i) states[b + i] = uint8_t(state >> 8 * i);
    if (some == kOnes) {
      for (size_t i = 0; i < kTogether; ++i) used[count + i] = int32_t(b + i);
      count += kTogether;
    } else if (some) {
      count += write_places(some * kGather >> 56, int32_t(b), used + count);
    }
  }
  return count;
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
                                           const int32_t* blocks, size_t count, float* block_max) {
  using T = typename Type::T;
  float row_max = -INFINITY, lowest_max = INFINITY;
  F sum[4] = {Vec::set1(0.0f), Vec::set1(0.0f), Vec::set1(0.0f), Vec::set1(0.0f)};
  for (size_t i = 0; i < count; ++i) {
    const auto b = size_t(blocks[i]);
    const T* p = static_cast<const T*>(row) + b * kBlock;
    const uint32_t* words = allowed + b * kWords;
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
    take(1, words[kWords - 1] >> (32 - kWidth), p + kBlock - kWidth);
    FASTSAMPLE_UNROLL
    for (int k = 0; k < kVectors - 1; ++k) take(k, bits.of(k), p + head + k * kWidth);
    block_max[b] = Vec::hmax(Vec::max(Vec::max(max[0], max[1]), Vec::max(max[2], max[3])));
    if (block_max[b] > row_max) row_max = block_max[b];
    if (block_max[b] < lowest_max) lowest_max = block_max[b];
  }
  const F total = Vec::add(Vec::add(sum[0], sum[1]), Vec::add(sum[2], sum[3]));
  return {row_max, lowest_max, Vec::any_nan(total)};
}

inline unsigned bits_of_block(const uint32_t* words) {
  unsigned count = 0;
  for (int j = 0; j < kWords; j += 2)
    count += Vec::popcount(words[j] | uint64_t(words[j + 1]) << 32);
  return count;
}

size_t count_allowed(const uint32_t* allowed, const int32_t* blocks, size_t count, size_t limit) {
  size_t total = 0;
  for (size_t i = 0; i < count && total <= limit; ++i)
    total += bits_of_block(allowed + size_t(blocks[i]) * kWords);
  return total;
}

template <class Type>
FASTSAMPLE_FLATTEN ScanResult list_allowed(const Scanned& row, const uint32_t* allowed,
                                           const int32_t* blocks, size_t count, float* block_max,
                                           Listed* list) {
  constexpr size_t kTogether = 64;  // blocks
  float row_max = -INFINITY;
  F lowest = Vec::set1(INFINITY), sum = Vec::set1(0.0f);
  for (size_t i = 0; i < count; i += kTogether) {
    const size_t end = count - i < kTogether ? count : i + kTogether;
    int32_t* ids = list->ids + list->size;
    float* x = list->x + list->size;
    // Words first, then their bits: how many of either there are is a surprise each time.
    int32_t words[kTogether * kWords + kSlack];
    size_t used = 0, size = 0;
    for (size_t k = i; k < end; ++k)
      used += write_places(Vec::used_words(allowed + size_t(blocks[k]) * kWords),
                           blocks[k] * kWords, words + used);
    for (size_t k = 0; k < used; ++k) {
      uint32_t word = allowed[words[k]];
      do ids[size++] = 32 * words[k] + lowest_bit(word);
      while (word &= word - 1);
    }
    gather<Type>(static_cast<const typename Type::T*>(row.data), row.first, ids, size, x);
    const auto tail = [](size_t left) { return left < size_t(kWidth) ? (1u << left) - 1 : ~0u; };
    for (size_t j = 0; j < size; j += kWidth)
      lowest = Vec::min(lowest, Vec::where(tail(size - j), Vec::load(x + j), lowest));
    for (size_t k = i; k < end; ++k) {
      const uint32_t* here = allowed + size_t(blocks[k]) * kWords;
      const unsigned bits = bits_of_block(here);
      F max = Vec::set1(-INFINITY);
      for (unsigned j = 0; j < bits; j += kWidth)
        Vec::take(tail(bits - j), Vec::load(x + j), max, sum);
      x += bits;
      block_max[blocks[k]] = Vec::hmax(max);
      if (block_max[blocks[k]] > row_max) row_max = block_max[blocks[k]];
    }
    list->size += size;
  }
  return {row_max, Vec::hmin(lowest), Vec::any_nan(sum)};
}
