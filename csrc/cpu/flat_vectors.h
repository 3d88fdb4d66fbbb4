// Vectors along a run of elements of any count, and reductions over the lanes of one.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/vec.h"

namespace lmwp::LMWP_ISA {

// All lanes of a vector are new elements, or only its last ones, or only its first ones exist.
enum class Part { whole, overlapping, partial };

// Calls body.operator()<vectors, part>(i, lanes) for vectors that cover `count` elements: `vectors`
// of them from element i on, each with `lanes` new elements; `most` at a time where there are.
template <int most, typename Body>
static inline void for_vectors(int64_t count, Body body) {
  int64_t i = 0;
  for (; i + most * kLanes <= count; i += most * kLanes) {
    body.template operator()<most, Part::whole>(i, kLanes);
  }
  if constexpr (most > 1) {
    for (; i + kLanes <= count; i += kLanes) body.template operator()<1, Part::whole>(i, kLanes);
  }
  if (i == count) return;
  if (count >= kLanes) {
    body.template operator()<1, Part::overlapping>(count - kLanes, count - i);
  } else {
    body.template operator()<1, Part::partial>(0, count);
  }
}

// Zeros follow the elements that exist.
template <Part part, typename T>
static inline Vec get(const T* from, int64_t lanes) {
  return part == Part::partial ? widen_partial(from, lanes) : widen(from);
}

template <Part part, typename T>
static inline void put(Vec v, T* to, int64_t lanes) {
  if constexpr (part == Part::partial) {
    narrow_partial(v, to, lanes);
  } else {
    narrow(v, to);
  }
}

// v with `other` in the lanes that are not new.
template <Part part>
static inline Vec only_new(Vec v, int64_t lanes, Vec other = Vec{}) {
  if constexpr (part == Part::whole) return v;
  const bool last = part == Part::overlapping;
  const VecBits first = (VecBits)keep_first((Vec)(VecBits{} - 1), last ? kLanes - lanes : lanes);
  const VecBits mask = last ? ~first : first;
  return (Vec)(((VecBits)v & mask) | ((VecBits)other & ~mask));
}

static inline float sum_of_lanes(Vec v) {
  for (int n = kLanes; n > 1; n /= 2) v = even_lanes(v, v) + odd_lanes(v, v);
  return v[0];
}

// NaN if there is one.
static inline float largest_lane(Vec v) {
  for (int n = kLanes; n > 1; n /= 2) v = larger(even_lanes(v, v), odd_lanes(v, v));
  return v[0];
}

}  // namespace lmwp::LMWP_ISA
