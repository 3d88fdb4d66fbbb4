// One register of float32 lanes, its element types and its partial loads and stores.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include <stdint.h>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LMWP_VECTOR_BYTES 64
#elif defined(__AVX__)
#define LMWP_VECTOR_BYTES 32
#else
#define LMWP_VECTOR_BYTES 16
#endif

namespace lmwp::LMWP_ISA {

constexpr int kLanes = LMWP_VECTOR_BYTES / 4;

template <int lanes>
struct FloatVecOf {
  typedef float type __attribute__((vector_size(lanes * 4)));
};
template <int lanes>
using FloatVec = typename FloatVecOf<lanes>::type;

using Vec = FloatVec<kLanes>;
typedef int32_t VecInt __attribute__((vector_size(LMWP_VECTOR_BYTES)));
typedef uint32_t VecBits __attribute__((vector_size(LMWP_VECTOR_BYTES)));
typedef double VecDouble __attribute__((vector_size(LMWP_VECTOR_BYTES)));
typedef uint16_t VecHalf __attribute__((vector_size(LMWP_VECTOR_BYTES / 2)));

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

template <typename V>
static inline V load(const void* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof(V));
  return v;
}

template <typename V>
static inline void store(void* to, V v) {
  __builtin_memcpy(to, &v, sizeof(V));
}

template <typename V>
static inline V broadcast(float value) {
  return value - V{};
}

// Copies 0 <= count < lanes elements in at most four moves.
template <int bytes_per_element>
static inline void copy_partial(void* to, const void* from, int64_t count) {
  char* out = static_cast<char*>(to);
  const char* in = static_cast<const char*>(from);
#define LMWP_COPY(lanes)                                  \
  if (lanes < kLanes && (count & lanes)) {                \
    __builtin_memcpy(out, in, lanes * bytes_per_element); \
    out += lanes * bytes_per_element;                     \
    in += lanes * bytes_per_element;                      \
  }
  LMWP_COPY(8)
  LMWP_COPY(4)
  LMWP_COPY(2)
  LMWP_COPY(1)
#undef LMWP_COPY
}

static inline Vec widen(const BFloat16* from) {
  return (Vec)(__builtin_convertvector(load<VecHalf>(from), VecBits) << 16);
}

static inline void narrow(Vec v, BFloat16* to) {
  const VecBits bits = (VecBits)v;
  const VecBits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const VecBits quiet_nan = (bits >> 16) | 0x40;
  store(to, __builtin_convertvector(v != v ? quiet_nan : rounded, VecHalf));
}

#if defined(__AVX512F__)

static inline Vec widen(const Half* from) {
  return (Vec)_mm512_maskz_cvtph_ps(0xffff, (__m256i)load<VecHalf>(from));
}

static inline void narrow(Vec v, Half* to) {
  store(to, (VecHalf)_mm512_maskz_cvtps_ph(0xffff, (__m512)v, _MM_FROUND_TO_NEAREST_INT));
}

#elif defined(__F16C__)

static inline Vec widen(const Half* from) {
  return (Vec)_mm256_cvtph_ps((__m128i)load<VecHalf>(from));
}

static inline void narrow(Vec v, Half* to) {
  store(to, (VecHalf)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
}

#else

constexpr uint32_t kHalfBias = 112u << 23;  // exponent bias of float32 less that of float16

static inline Vec widen(const Half* from) {
  const VecBits bits = __builtin_convertvector(load<VecHalf>(from), VecBits);
  const VecBits magnitude = bits & 0x7fff;
  const VecBits shifted = (magnitude << 13) + kHalfBias;
  // A subnormal m * 2^-24 is (2^-14 + m * 2^-24) - 2^-14, exact and free of float32 denormals.
  const Vec implicit_one = (Vec)(VecBits{} + (kHalfBias + (1u << 23)));
  const VecBits subnormal = (VecBits)((Vec)(shifted + (1u << 23)) - implicit_one);
  const VecBits special = (magnitude << 13) | 0x7f800000;
  const VecBits finite = magnitude < 0x400 ? subnormal : shifted;
  return (Vec)((magnitude >= 0x7c00 ? special : finite) | (bits & 0x8000) << 16);
}

static inline void narrow(Vec v, Half* to) {
  const VecBits bits = (VecBits)v;
  const VecBits magnitude = bits & 0x7fffffff;
  const VecBits rebased = magnitude - kHalfBias;
  const VecBits normal = (rebased + 0xfff + ((rebased >> 13) & 1)) >> 13;
  // Below 2^-14 the addition of 0.5 rounds to a multiple of 2^-24, float16's smallest step.
  const VecBits subnormal = (VecBits)((Vec)magnitude + 0.5f) - 0x3f000000;
  const VecBits nan_or_inf = magnitude > 0x7f800000 ? VecBits{} + 0x7e00 : VecBits{} + 0x7c00;
  const VecBits finite = magnitude < 0x38800000 ? subnormal : normal;
  const VecBits result =
      (magnitude >= 0x47800000 ? nan_or_inf : finite) | (bits & 0x80000000) >> 16;
  store(to, __builtin_convertvector(result, VecHalf));
}

#endif

static inline Vec widen(const float* from) { return load<Vec>(from); }
static inline void narrow(Vec v, float* to) { store(to, v); }

#if LMWP_VECTOR_BYTES == 64
#define LMWP_LOWER 0, 1, 2, 3, 4, 5, 6, 7
#define LMWP_UPPER 8, 9, 10, 11, 12, 13, 14, 15
#define LMWP_EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define LMWP_ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define LMWP_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define LMWP_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define LMWP_BEFORE 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30
#define LMWP_AFTER 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16
#elif LMWP_VECTOR_BYTES == 32
#define LMWP_LOWER 0, 1, 2, 3
#define LMWP_UPPER 4, 5, 6, 7
#define LMWP_EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define LMWP_ODD 1, 3, 5, 7, 9, 11, 13, 15
#define LMWP_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define LMWP_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#define LMWP_BEFORE 7, 8, 9, 10, 11, 12, 13, 14
#define LMWP_AFTER 1, 2, 3, 4, 5, 6, 7, 8
#else
#define LMWP_LOWER 0, 1
#define LMWP_UPPER 2, 3
#define LMWP_EVEN 0, 2, 4, 6
#define LMWP_ODD 1, 3, 5, 7
#define LMWP_LOW 0, 4, 1, 5
#define LMWP_HIGH 2, 6, 3, 7
#define LMWP_BEFORE 3, 4, 5, 6
#define LMWP_AFTER 1, 2, 3, 4
#endif

// GCC 12 converts these in halves where it is not told the instruction.
#if defined(__AVX512F__)
static inline VecDouble doubles(FloatVec<kLanes / 2> v) {
  return (VecDouble)_mm512_maskz_cvtps_pd(0xff, (__m256)v);
}
#elif defined(__F16C__)
static inline VecDouble doubles(FloatVec<kLanes / 2> v) {
  return (VecDouble)_mm256_cvtps_pd((__m128)v);
}
#else
static inline VecDouble doubles(FloatVec<kLanes / 2> v) {
  return __builtin_convertvector(v, VecDouble);
}
#endif

// The lower and the upper half of the lanes, as float64.
static inline VecDouble low_doubles(Vec v) {
  return doubles(__builtin_shufflevector(v, v, LMWP_LOWER));
}
static inline VecDouble high_doubles(Vec v) {
  return doubles(__builtin_shufflevector(v, v, LMWP_UPPER));
}

// Every second lane of a followed by b.
static inline Vec even_lanes(Vec a, Vec b) { return __builtin_shufflevector(a, b, LMWP_EVEN); }
static inline Vec odd_lanes(Vec a, Vec b) { return __builtin_shufflevector(a, b, LMWP_ODD); }

// Lanes of a and b in turns: those of their lower halves, then those of their upper ones.
static inline Vec interleave_low(Vec a, Vec b) { return __builtin_shufflevector(a, b, LMWP_LOW); }
static inline Vec interleave_high(Vec a, Vec b) { return __builtin_shufflevector(a, b, LMWP_HIGH); }

// b moved up by one lane, behind the last of a; a moved down by one, before the first of b.
static inline Vec one_before(Vec a, Vec b) { return __builtin_shufflevector(a, b, LMWP_BEFORE); }
static inline Vec one_after(Vec a, Vec b) { return __builtin_shufflevector(a, b, LMWP_AFTER); }

// The larger of each pair of lanes; NaN where either is.
static inline Vec larger(Vec a, Vec b) { return (a > b) | (a != a) ? a : b; }

// The first `count` lanes of v, zeros in the others.
static inline Vec keep_first(Vec v, int64_t count) {
  static const int32_t lane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return (Vec)((VecInt)v & (load<VecInt>(lane) < (int32_t)count));
}

// Reads 0 < count < lanes elements and nothing beyond them; zeros in the other lanes.
template <typename T>
static inline Vec widen_partial(const T* from, int64_t count) {
  T buffer[kLanes] = {};
  copy_partial<sizeof(T)>(buffer, from, count);
  return widen(buffer);
}

template <typename T>
static inline void narrow_partial(Vec v, T* to, int64_t count) {
  T buffer[kLanes];
  narrow(v, buffer);
  copy_partial<sizeof(T)>(to, buffer, count);
}

}  // namespace lmwp::LMWP_ISA
