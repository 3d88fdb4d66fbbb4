// Convolution by a pruned weight.
//
// A task is a tile of pixels of one image and the output channels of one group. The input channels
// that these read are brought into float32 planes that stay in cache: conversion, any strides,
// padding and the stride of the convolution happen on the way, and so do sets of the cache that
// whole maps would share. A nonzero of the weight is then one constant offset, and the pixels of
// all rows of a tile one run of vectors. See the op's README for the counts.
#include "cpu/sparse_conv2d.h"

#include "cpu/denormals.h"
#include "cpu/sparse_depthwise.h"
#include "cpu/sparse_pixels.h"
#include "cpu/sparse_tile.h"

namespace lmwp::LMWP_ISA {
namespace {

int64_t task_count(const SparseConvProblem& p) {
  if (reads_rows(p)) return DepthwiseRunner::task_count(p);
  return p.batch * tile_count(p) * ceil_div(p.groups, task_groups(p)) * p.splits;
}

constexpr int64_t kFarFloats = 1 << 19;

// Room for the results of one channel over a tile.
int64_t result_floats(const SparseConvProblem& p) {
  return spaced((p.tiling.rows - 1) * p.tiling.pitch + p.tiling.columns + kAlign);
}

// Whether the results of a task are written together, a vector of channels of a pixel at a time:
// they are of one channel after the other.
bool writes_pixels(const SparseConvProblem& p) {
  return is_interleaved(p.y_stride) && (p.splits == 1 || p.singles.offset);
}

// Channels that have room for their results at a time.
int64_t result_channels(const SparseConvProblem& p) {
  const bool all = p.singles.offset || writes_pixels(p);
  return all ? task_groups(p) * p.group_outputs : kSparseChannels;
}

int64_t scratch_floats(const SparseConvProblem& p) {
  return task_groups(p) * p.plane_count * p.tiling.floats + result_channels(p) * result_floats(p) +
         2 * kAlign;
}

// Whether an image of both sides is larger than a second-level cache.
bool is_far(const SparseConvProblem& p) {
  const int64_t inputs = p.height * p.width * p.groups * p.group_channels;
  return inputs + p.out_height * p.out_width * p.singles.channels > kFarFloats;
}

// Runs tasks with elements of type T.
template <typename T>
class Runner {
 public:
  Runner(const SparseConvProblem& problem, float* scratch)
      : p_(problem), stride_(result_floats(problem)), far_(is_far(problem)) {
    Arena arena(scratch);
    results_ = arena.take(result_channels(problem) * stride_);
    planes_ = arena.take(0);
  }

  void run(int64_t task) {
    const int64_t split = task % p_.splits;
    task /= p_.splits;
    const int64_t parts = ceil_div(p_.groups, task_groups(p_));
    const int64_t first = task % parts * task_groups(p_);
    const int64_t groups = min(task_groups(p_), p_.groups - first);
    tile_ = tile_at(p_, task / parts);
    vectors_ = tile_vectors(p_, tile_);
    first_output_ = first * p_.group_outputs;
    // Whether results can be stored where they belong.
    direct_ = is_float32(static_cast<const T*>(nullptr)) && tile_.rows == 1 && p_.y_stride[3] == 1;
    find_planes(first, groups);
    for (int64_t g = first; g < first + groups; ++g) {
      compute_group(g, split);
      base_ += group_floats_;
    }
    if (writes_pixels(p_)) write_pixels(Range(groups * p_.group_outputs, split, p_.splits));
  }

 private:
  // One of `parts` parts of `count`, as even as can be.
  struct Range {
    Range(int64_t count, int64_t part, int64_t parts)
        : begin(part * count / parts), end((part + 1) * count / parts) {}
    const int64_t begin, end;
  };

  // Where the tile's pixels of groups from `group` on are, or are brought to.
  void find_planes(int64_t group, int64_t groups) {
    const int64_t channel = group * p_.group_channels;
    in_place_ = p_.in_place.of && tile_.columns % kLanes == 0;
    if (in_place_) {
      base_ = static_cast<const float*>(p_.x) + tile_.image * p_.x_stride[0] +
              channel * p_.x_stride[1] + tile_.column;
      source_ = p_.in_place;
      group_floats_ = p_.group_channels * p_.x_stride[1];
      return;
    }
    base_ = planes_;
    source_ = p_.source;
    group_floats_ = p_.plane_count * p_.tiling.floats;
    if (is_interleaved(p_.x_stride)) {
      InterleavedPlanes<T>(p_, tile_, group, groups, planes_).load();
      return;
    }
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t i = 0; i < p_.plane_count; ++i) {
        load_plane<T>(p_, tile_, channel + g * p_.group_channels, p_.planes[i],
                      planes_ + (g * p_.plane_count + i) * p_.tiling.floats);
      }
    }
  }

  void compute_group(int64_t group, int64_t split) {
    if (p_.singles.offset) {
      const Range range(p_.group_outputs, split, p_.splits);
      compute_singles(group * p_.group_outputs + range.begin, range.end - range.begin);
    } else {
      const int64_t first = p_.first_row[group];
      const Range range(p_.first_row[group + 1] - first, split, p_.splits);
      for (int64_t r = range.begin; r < range.end; ++r) compute(p_.rows[first + r]);
    }
  }

  // Where the results of a channel are, where all of a task's have room.
  float* results_of(int64_t channel) const {
    return results_ + (channel - first_output_) * stride_;
  }

  // A panel of pixels is finished before the next one: what a slab reads of it stays in the first
  // level of the cache.
  void compute_singles(int64_t channel, int64_t count) {
    SparseSlab slab{};
    slab.column = p_.singles.column;
    slab.weight = p_.singles.weight;
    slab.channel = channel;
    slab.count = count;
    slab.sum_stride = stride_;
    slab.stride = p_.y_stride[1];
    slab.problem = &p_;
    const int64_t panel = ceil_div(vectors_, ceil_div(vectors_, kSparseVectors));
    for (int64_t v = 0; v < vectors_; v += panel) {
      const int64_t pixel = v * kLanes;
      slab.sums = results_of(channel) + pixel;
      slab.pixels = direct_ ? tile_.columns - pixel : vectors_ * kLanes;
      slab.out = direct_ ? reinterpret_cast<float*>(output(channel, 0)) + pixel : nullptr;
      for (int64_t s = 0; s < p_.singles.slabs; ++s) {
        slab.offset = p_.singles.offset + s * p_.singles.channels + channel;
        slab.is_first = s == 0;
        slab.is_last = s + 1 == p_.singles.slabs;
        slab.fetched = far_ && slab.is_first && in_place_ ? p_.plane_count : 0;
        slab.fetches_out = far_ && slab.is_last && direct_;
        add_slab(pixel, min(vectors_ - v, panel), slab);
      }
    }
    if (direct_ || writes_pixels(p_)) return;
    for (int64_t r = 0; r < count; ++r) write(channel + r, results_of(channel + r));
  }

  void add_slab(int64_t pixel, int64_t vectors, const SparseSlab& slab) const {
    if (source_.spacing > 0) {
      sparse_singles_function<EvenPlanes>(vectors)(base_ + pixel, {source_.spacing}, slab);
    } else {
      sparse_singles_function<ListedPlanes>(vectors)(base_ + pixel, {source_.of}, slab);
    }
  }

  // The channels of `rows`, a few at a time and as evenly as can be.
  void compute(const SparseRows& rows) {
    for_each_even_tile(rows.count, kSparseChannels, [&](int64_t first, int64_t count) {
      SparseTarget target;
      for (int64_t t = 0; t < count; ++t) {
        const int64_t c = rows.output[first + t];
        target.epilogue[t] = ChannelEpilogue(p_, c);
        target.out[t] = direct_             ? reinterpret_cast<float*>(output(c, 0))
                        : writes_pixels(p_) ? results_of(c)
                                            : results_ + t * stride_;
      }
      target.pixels = direct_ ? tile_.columns : vectors_ * kLanes;
      sparse_tile_function(count)({base_, source_.of}, rows, rows.weight + first * rows.output_step,
                                  target, vectors_);
      if (direct_ || writes_pixels(p_)) return;
      for (int64_t t = 0; t < count; ++t) write(rows.output[first + t], results_ + t * stride_);
    });
  }

  // Takes the results of some of a task's channels over the tile to the output.
  void write_pixels(const Range& channels) const {
    const int64_t lanes = min(kLanes, channels.end - channels.begin);
    if (lanes == 0) return;
    for (int64_t i = 0; i < tile_.rows; ++i) {
      for (int64_t c = channels.begin; c < channels.end; c += kLanes) {
        const int64_t first = min(c, channels.end - lanes);
        planes_to_pixels(results_ + first * stride_ + i * p_.tiling.pitch, stride_, tile_.columns,
                         lanes, output(first_output_ + first, i), p_.y_stride[3]);
      }
    }
  }

  // Takes the results of a channel over the tile to the output.
  void write(int64_t c, const float* results) const {
    for (int64_t i = 0; i < tile_.rows; ++i, results += p_.tiling.pitch) {
      if constexpr (is_float32(static_cast<const T*>(nullptr))) {
        // In a plane, what lies between is of another phase of the same gradient.
        if (p_.y_stride[3] == 2 && p_.y_stride[1] > 2) {
          write_every_second(results, tile_.columns, output(c, i));
          continue;
        }
      }
      write_row(results, tile_.columns, output(c, i), p_.y_stride[3]);
    }
  }

  // Where the first pixel of a row of the tile goes.
  T* output(int64_t c, int64_t row) const {
    return static_cast<T*>(p_.y) + tile_.image * p_.y_stride[0] + c * p_.y_stride[1] +
           (tile_.row + row) * p_.y_stride[2] + tile_.column * p_.y_stride[3];
  }

  const SparseConvProblem& p_;
  const int64_t stride_;
  const bool far_;
  float *results_, *planes_;
  SparseTile tile_;
  int64_t vectors_;       // of the tile
  int64_t first_output_;  // channel of the task
  bool direct_, in_place_;
  const float* base_;     // the first plane of a group
  int64_t group_floats_;  // from there to that of the next
  SparseSource source_;
};

template <typename T>
void run_as(const SparseConvProblem& problem, int64_t begin, int64_t end, float* scratch) {
  Runner<T> runner(problem, scratch);
  for (int64_t task = begin; task < end; ++task) runner.run(task);
}

void run(const SparseConvProblem& problem, int64_t begin, int64_t end, float* scratch) {
  const FlushDenormals flush;
  if (reads_rows(problem)) {
    DepthwiseRunner runner(problem);
    for (int64_t task = begin; task < end; ++task) runner.run(task);
    return;
  }
  switch (problem.dtype) {
    case Dtype::float32:
      return run_as<float>(problem, begin, end, scratch);
    case Dtype::float16:
      return run_as<Half>(problem, begin, end, scratch);
    case Dtype::bfloat16:
      return run_as<BFloat16>(problem, begin, end, scratch);
  }
}

}  // namespace

SparseConvKernel sparse_conv2d_kernel() { return {task_count, scratch_floats, run}; }

}  // namespace lmwp::LMWP_ISA
