// Pixels of a feature as layers read them, and layers' pixels as a feature.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/feature.h"
#include "cpu/flat_vectors.h"
#include "cpu/pointwise.h"

namespace lmwp::LMWP_ISA {

// Its first element from a pixel of an image on.
template <typename T>
static inline T* first_of(const ImageFeature& feature, int64_t image, int64_t pixel) {
  return static_cast<T*>(feature.data) + image * feature.image +
         pixel * (feature.pixel ? feature.pixel : 1);
}

// `rows` rows of elements as float32, `pitch` apart, one behind the other at `to`.
template <typename T>
static inline void widen_rows(const T* x, int64_t pitch, int64_t rows, int64_t count, float* to) {
  for (int64_t r = 0; r < rows; ++r, x += pitch, to += count) {
    for_vectors<1>(count, [&]<int vectors, Part part>(int64_t i, int64_t lanes) {
      put<part>(get<part>(x + i, lanes), to + i, lanes);
    });
  }
}

// `pixels` pixels of a feature: where they are, or copied to `room` for [channels, pixels] floats.
template <typename T>
static inline PixelSource pixels_of(const ImageFeature& feature, int64_t image, int64_t first,
                                    int64_t channels, int64_t pixels, float* room) {
  const T* const x = first_of<const T>(feature, image, first);
  const bool planar = feature.pixel == 0;
  const int64_t stride = planar ? feature.channel : feature.pixel;
  if constexpr (is_float32(static_cast<const T*>(nullptr))) return {x, stride, planar};
  const int64_t count = planar ? pixels : channels;
  widen_rows(x, stride, planar ? channels : pixels, count, room);
  return {room, count, planar};
}

// Writes dense pixels [pixels, padded(channels)] as planes, a stretch of a few planes at a time.
// `finish(channel, pixel, part, lanes, v)` is what becomes of a vector of pixels of a channel.
template <typename T, typename Finish>
static inline void to_planes(const float* from, int64_t pixels, int64_t channels, T* to,
                             int64_t plane, Finish finish) {
  constexpr int64_t kStretch = 16 * kLanes;
  const int64_t pitch = padded(channels);
  float stretch[kLanes * kStretch];
  for (int64_t c = 0; c < channels; c += kLanes) {
    for (int64_t first = 0; first < pixels; first += kStretch) {
      const int64_t count = min(kStretch, pixels - first);
      for (int64_t i = 0; i < count; i += kLanes) {
        Vec v[kLanes];
        load_square(from + (first + i) * pitch + c, pitch, count - i, kLanes, v);
        transpose(v);
#pragma GCC unroll 16
        for (int k = 0; k < kLanes; ++k) store(stretch + k * kStretch + i, v[k]);
      }
      for (int64_t k = 0; k < min(kLanes, channels - c); ++k) {
        T* const row = to + (c + k) * plane + first;
        for_vectors<1>(count, [&]<int vectors, Part part>(int64_t i, int64_t lanes) {
          const Vec v = load<Vec>(stretch + k * kStretch + i);
          put<part>(finish.template operator()<part>(c + k, first + i, lanes, v), row + i, lanes);
        });
      }
    }
  }
}

// The same as pixels `pixel` apart; `finish` takes a vector of channels of a pixel.
template <typename T, typename Finish>
static inline void to_pixels(const float* from, int64_t pixels, int64_t channels, T* to,
                             int64_t pixel, Finish finish) {
  for (int64_t i = 0; i < pixels; ++i, from += padded(channels), to += pixel) {
    for_vectors<1>(channels, [&]<int vectors, Part part>(int64_t c, int64_t lanes) {
      const Vec v = load<Vec>(from + c);
      put<part>(finish.template operator()<part>(c, i, lanes, v), to + c, lanes);
    });
  }
}

}  // namespace lmwp::LMWP_ISA
