// Rows of a feature map between memory, of any element type and stride, and float32 scratch.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/vec.h"

namespace lmwp::LMWP_ISA {

constexpr int64_t kAlign = 16;  // floats in a cache line

static inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t align(int64_t floats) { return ceil_div(floats, kAlign) * kAlign; }

// Room for a plane of so many floats among others that are read together: an odd number of cache
// lines, so that their rows do not fall onto the same sets of a cache.
static inline int64_t spaced(int64_t floats) { return (ceil_div(floats, kAlign) | 1) * kAlign; }

// Calls function(first, count) for tiles of at most `most` of `total` that are as even as can be.
template <typename Function>
static inline void for_each_even_tile(int64_t total, int64_t most, Function&& function) {
  const int64_t tiles = ceil_div(total, most);
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t begin = t * total / tiles, end = (t + 1) * total / tiles;
    function(begin, end - begin);
  }
}

// Takes aligned pieces off scratch.
class Arena {
 public:
  explicit Arena(float* scratch) {
    const uintptr_t misaligned = reinterpret_cast<uintptr_t>(scratch) / sizeof(float) % kAlign;
    next_ = scratch + (kAlign - misaligned) % kAlign;
  }
  float* take(int64_t floats) {
    float* taken = next_;
    next_ += floats;
    return taken;
  }

 private:
  float* next_;
};

static constexpr bool is_float32(const float*) { return true; }
static constexpr bool is_float32(const void*) { return false; }

// Reads `count` elements as float32; below a whole vector of them, zeros follow up to one.
// Elements before `end` may be read though they are not wanted.
template <typename T>
static inline void read_row(const T* x, int64_t step, int64_t count, const T* end, float* to) {
  if (step != 1) {
    int64_t c = 0;
    for (; step == 2 && c < count && end - (x + 2 * c) >= 2 * kLanes; c += kLanes) {
      const Vec v = even_lanes(widen(x + 2 * c), widen(x + 2 * c + kLanes));
      store(to + c, count - c < kLanes ? keep_first(v, count - c) : v);
    }
    for (; c < count; c += kLanes) {
      T buffer[kLanes] = {};
      for (int64_t i = 0; i < min(kLanes, count - c); ++i) buffer[i] = x[(c + i) * step];
      store(to + c, widen(buffer));
    }
  } else if (count >= kLanes) {
    for (int64_t begin = 0; begin < count; begin += kLanes) {
      const int64_t c = min(begin, count - kLanes);
      store(to + c, widen(x + c));
    }
  } else if (end - x >= kLanes) {
    store(to, keep_first(widen(x), count));
  } else {
    store(to, widen_partial(x, count));
  }
}

template <typename T>
static inline void write_row(const float* from, int64_t count, T* y, int64_t step) {
  if (step != 1) {
    for (int64_t c = 0; c < count; c += kLanes) {
      T buffer[kLanes];
      narrow(load<Vec>(from + c), buffer);
      for (int64_t i = 0; i < min(kLanes, count - c); ++i) y[(c + i) * step] = buffer[i];
    }
  } else if (count >= kLanes) {
    for (int64_t begin = 0; begin < count; begin += kLanes) {
      const int64_t c = min(begin, count - kLanes);
      narrow(load<Vec>(from + c), y + c);
    }
  } else {
    narrow_partial(load<Vec>(from), y, count);
  }
}

// Every second element of a row that nobody else writes to meanwhile: whole vectors are written,
// with what lies between as it was.
static inline void write_every_second(const float* from, int64_t count, float* y) {
  int64_t c = 0;
  for (; c + kLanes < count; c += kLanes, y += 2 * kLanes) {
    const Vec v = load<Vec>(from + c), between = odd_lanes(load<Vec>(y), load<Vec>(y + kLanes));
    store(y, interleave_low(v, between));
    store(y + kLanes, interleave_high(v, between));
  }
  write_row(from + c, count - c, y, 2);
}

// Splits `count` columns, zero padded to two whole vectors, into even and odd ones.
static inline void split_columns(const float* from, int64_t count, float* even, float* odd) {
  for (int64_t c = 0; c < count; c += 2 * kLanes) {
    const Vec a = load<Vec>(from + c), b = load<Vec>(from + c + kLanes);
    store(even + c / 2, even_lanes(a, b));
    store(odd + c / 2, odd_lanes(a, b));
  }
}

}  // namespace lmwp::LMWP_ISA
