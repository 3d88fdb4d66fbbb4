// Tiles of a convolution by a pruned weight whose channels lie side by side.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/sparse_planes.h"
#include "cpu/transpose.h"

namespace lmwp::LMWP_ISA {

// Whether channels lie side by side and pixels do not.
static inline bool is_interleaved(const int64_t* stride) {
  return stride[1] == 1 && stride[3] != 1;
}

// Groups of a task: where channels lie side by side, as many as fill a vector with theirs.
static inline int64_t task_groups(const SparseConvProblem& p) {
  const bool interleaved = is_interleaved(p.x_stride) || is_interleaved(p.y_stride);
  if (!interleaved || p.splits > 1) return 1;
  return max(1, min(p.groups, kLanes / max(p.group_channels, p.group_outputs)));
}

// Channels of a run of pixels, side by side from `first` on, as planes; channel k is not wanted
// where to[k] is null. Behind each run there is room for a vector.
template <typename T>
static inline void pixels_to_planes(const T* first, int64_t pitch, int64_t pixels, int64_t channels,
                                    float* const* to) {
  for (int64_t i = 0; i < pixels; i += kLanes, first += kLanes * pitch) {
    Vec v[kLanes] = {};
    if (i + kLanes <= pixels && channels == kLanes) {
#pragma GCC unroll 16
      for (int j = 0; j < kLanes; ++j) v[j] = widen(first + j * pitch);
    } else {
      for (int j = 0; j < min(kLanes, pixels - i); ++j) {
        const T* const pixel = first + j * pitch;
        v[j] = channels == kLanes ? widen(pixel) : widen_partial(pixel, channels);
      }
    }
    transpose(v);
#pragma GCC unroll 16
    for (int k = 0; k < kLanes; ++k) {
      if (to[k]) store(to[k] + i, v[k]);
    }
  }
}

// The way back, from planes `plane` floats apart.
template <typename T>
static inline void planes_to_pixels(const float* planes, int64_t plane, int64_t pixels,
                                    int64_t channels, T* to, int64_t pitch) {
  for (int64_t i = 0; i < pixels; i += kLanes) {
    Vec v[kLanes];
#pragma GCC unroll 16
    for (int k = 0; k < kLanes; ++k)
      v[k] = k < channels ? load<Vec>(planes + k * plane + i) : Vec{};
    transpose(v);
    for (int j = 0; j < min(kLanes, pixels - i); ++j) {
      T* const pixel = to + (i + j) * pitch;
      if (channels == kLanes) {
        narrow(v[j], pixel);
      } else {
        narrow_partial(v[j], pixel, channels);
      }
    }
  }
}

// The planes of a tile that `groups` groups from `group` on read, a vector of channels at a time.
template <typename T>
class InterleavedPlanes {
 public:
  InterleavedPlanes(const SparseConvProblem& p, const SparseTile& tile, int64_t group,
                    int64_t groups, float* to)
      : p_(p), tile_(tile), group_(group), to_(to) {
    while (phases_ < p.plane_count && p.planes[phases_].channel == p.planes[0].channel) ++phases_;
    per_group_ = phases_ ? p.plane_count / phases_ : 0;
    count_ = groups * per_group_;
  }

  void load() const {
    for (int64_t phase = 0; phase < phases_; ++phase) {
      for (int64_t next = 0; next < count_;) next = load_from(next, phase);
    }
  }

 private:
  // Of all groups, for the entry of those that are read.
  int64_t channel(int64_t entry) const {
    return (group_ + entry / per_group_) * p_.group_channels +
           p_.planes[entry % per_group_ * phases_].channel;
  }

  // Loads what a vector of channels holds; returns the first entry behind it.
  int64_t load_from(int64_t entry, int64_t phase) const {
    const int64_t all = p_.groups * p_.group_channels, lanes = min(kLanes, all);
    const int64_t base = min(channel(entry), all - lanes);
    float* planes[kLanes] = {};
    for (; entry < count_ && channel(entry) < base + lanes; ++entry) {
      planes[channel(entry) - base] = to_ + (entry * phases_ + phase) * p_.tiling.floats;
    }
    load_planes(base, lanes, p_.planes[phase], planes);
    return entry;
  }

  void load_planes(int64_t base, int64_t lanes, const SparsePlane& plane, float** to) const {
    const T* const x =
        static_cast<const T*>(p_.x) + tile_.image * p_.x_stride[0] + base * p_.x_stride[1];
    const PlaneColumns columns(p_, tile_, plane);
    for (int64_t i = 0; i < tile_.rows + p_.tiling.halo; ++i) {
      const int64_t h = plane.row + (tile_.row + i) * p_.step[0];
      const bool inside = h >= 0 && h < p_.height && columns.begin < columns.end;
      const int64_t begin = inside ? columns.begin : 0, end = inside ? columns.end : 0;
      float* first[kLanes];
      for (int k = 0; k < kLanes; ++k) {
        first[k] = to[k] ? to[k] + i * p_.tiling.pitch + begin : nullptr;
      }
      if (inside) {
        const T* const from = x + h * p_.x_stride[2] + columns.of_map(begin) * p_.x_stride[3];
        pixels_to_planes(from, columns.step * p_.x_stride[3], end - begin, lanes, first);
      }
      for (int k = 0; k < kLanes; ++k) {
        if (first[k] == nullptr) continue;
        clear_columns(first[k], -begin, 0);
        clear_columns(first[k], end - begin, columns.width - begin);
      }
    }
  }

  const SparseConvProblem& p_;
  const SparseTile& tile_;
  const int64_t group_;
  float* const to_;
  int64_t phases_ = 0;         // planes of a channel
  int64_t per_group_, count_;  // channels that are read
};

}  // namespace lmwp::LMWP_ISA
