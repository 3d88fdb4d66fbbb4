// How a convolution by a pruned weight is cut into tiles, and where in them each column reads.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/sparse_conv2d.h"

namespace lmwp {

// Sizes of a convolution: (height, width) or (rows, columns) where there are two.
struct SparseGeometry {
  int64_t out_channels, group_channels, groups;
  int64_t kernel[2], step[2], padding[2], dilation[2], size[2], out_size[2];
};

// Fills the parts of a problem that describe its tiles; owns what they point to.
class SparsePlan {
 public:
  // `channels` are the input channels that are read, of those of a group. The columns of the weight
  // are numbered channel by channel in that order, tap by tap.
  SparsePlan(const SparseGeometry& geometry, const std::vector<int32_t>& channels)
      : geometry_(geometry) {
    for (int d = 0; d < 2; ++d) make_taps(d);
    const int64_t planes = phases_[0].size() * phases_[1].size() * channels.size();
    set_tiling(std::max(planes, geometry.out_channels / geometry.groups));
    for (const int32_t channel : channels) add_channel(channel);
    if (geometry.group_channels == 1 && geometry.step[0] * geometry.step[1] == 1 &&
        taps_[0].size() * taps_[1].size() <= kMostRowTaps) {
      for (const Tap& y : taps_[0]) {
        for (const Tap& x : taps_[1]) row_taps_.push_back({y.shift, x.shift});
      }
    }
  }

  // The pixels can be read where they are: maps that are one row each, `stride` floats apart.
  void read_in_place(int64_t stride) {
    for (const SparsePlane& plane : planes_) {
      in_place_.push_back(static_cast<int32_t>(plane.channel * stride));
    }
  }

  void describe(SparseConvProblem& problem, int64_t threads) const {
    for (int d = 0; d < 2; ++d) problem.step[d] = geometry_.step[d];
    problem.planes = planes_.data();
    problem.plane_count = static_cast<int64_t>(planes_.size());
    problem.groups = geometry_.groups;
    problem.group_channels = geometry_.group_channels;
    problem.group_outputs = geometry_.out_channels / geometry_.groups;
    problem.source = source_of(source_);
    problem.in_place = source_of(in_place_);
    problem.tiling = tiling_;
    const int64_t tiles = ceil_div(geometry_.out_size[0], tiling_.rows) *
                          ceil_div(geometry_.out_size[1], tiling_.columns);
    const int64_t tasks = std::max<int64_t>(1, problem.batch * tiles * geometry_.groups);
    problem.splits = ceil_div(threads, tasks);
    problem.row_taps = row_taps_.empty() ? nullptr : row_taps_.data();
  }

 private:
  static constexpr int64_t kLine = 16;             // floats
  static constexpr int64_t kPanel = 128;           // pixels of a part of a tile of one row, at most
  static constexpr int64_t kTilePixels = 4096;     // at most, of a tile of several rows
  static constexpr int64_t kTileFloats = 1 << 16;  // of all planes of one, where there is a choice

  // A tap of one direction reads one pixel in every `step`, in the phase with this index, and
  // `shift` of those further.
  struct Tap {
    int64_t phase, shift;
  };

  static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

  // Parts of `whole`, no longer than `longest`, as even as can be.
  static int64_t even_part(int64_t whole, int64_t longest) {
    return ceil_div(whole, ceil_div(whole, longest));
  }

  void make_taps(int d) {
    const int64_t step = geometry_.step[d];
    std::vector<int64_t>& phases = phases_[d];
    for (int64_t k = 0; k < geometry_.kernel[d]; ++k) {
      const int64_t at = k * geometry_.dilation[d] - geometry_.padding[d];
      const int64_t phase = (at % step + step) % step;
      const auto known = std::find(phases.begin(), phases.end(), phase);
      taps_[d].push_back({known - phases.begin(), (at - phase) / step});
      if (known == phases.end()) phases.push_back(phase);
    }
    const auto by_shift = [](const Tap& a, const Tap& b) { return a.shift < b.shift; };
    const auto [first, last] = std::minmax_element(taps_[d].begin(), taps_[d].end(), by_shift);
    first_[d] = first->shift;
    halo_[d] = last->shift - first->shift;
  }

  static SparseSource source_of(const std::vector<int32_t>& places) {
    if (places.empty()) return {nullptr, 0};
    const int64_t spacing = places.size() > 1 ? places[1] : 0;
    for (std::size_t c = 0; c < places.size(); ++c) {
      if (places[c] != static_cast<int64_t>(c) * spacing) return {places.data(), 0};
    }
    return {places.data(), spacing};
  }

  void set_tiling(int64_t planes) {
    const int64_t height = geometry_.out_size[0], width = geometry_.out_size[1];
    int64_t columns = width, rows = 1;
    if (height == 1 || width + halo_[1] > kTilePixels) {
      const int64_t panel = ceil_div(even_part(width, kPanel), kLine) * kLine;
      const int64_t panels = ceil_div(width, panel);
      columns = panel * even_part(panels, std::clamp<int64_t>(kTileFloats / planes / panel, 1, 4));
    } else {
      const int64_t plane = std::min(kTilePixels, kTileFloats / planes);
      const int64_t fitting = plane / (width + halo_[1]) - halo_[0];
      rows = even_part(height, std::clamp<int64_t>(fitting, 1, height));
    }
    columns = std::min(columns, width);
    const int64_t pitch = columns + halo_[1];
    // Vectors of pixels may begin anywhere in the last row and reach behind it; an odd number of
    // cache lines keeps planes off each other's sets of a cache.
    const int64_t floats = (rows + halo_[0]) * pitch + 2 * kLine;
    tiling_ = {rows, columns, halo_[0], pitch, (ceil_div(floats, kLine) | 1) * kLine};
  }

  void add_channel(int64_t channel) {
    const int64_t first_plane = static_cast<int64_t>(planes_.size());
    for (const Tap& y : taps_[0]) {
      for (const Tap& x : taps_[1]) {
        const int64_t plane = first_plane + y.phase * phases_[1].size() + x.phase;
        const int64_t row = y.shift - first_[0], column = x.shift - first_[1];
        source_.push_back(
            static_cast<int32_t>(plane * tiling_.floats + row * tiling_.pitch + column));
      }
    }
    for (const int64_t y : phases_[0]) {
      for (const int64_t x : phases_[1]) {
        planes_.push_back(
            {channel, y + first_[0] * geometry_.step[0], x + first_[1] * geometry_.step[1]});
      }
    }
  }

  const SparseGeometry geometry_;
  std::vector<int64_t> phases_[2];
  std::vector<Tap> taps_[2];
  int64_t first_[2], halo_[2];
  std::vector<SparsePlane> planes_;
  std::vector<int32_t> source_, in_place_;
  std::vector<SparseShift> row_taps_;
  SparseTiling tiling_{};
};

}  // namespace lmwp
