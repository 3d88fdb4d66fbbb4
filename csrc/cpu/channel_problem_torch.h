// What the torch ops share whose kernels pass over the channels of a feature.
#pragma once

#include "cpu/channel_problem.h"
#include "cpu/torch_arguments.h"

namespace lmwp {

inline void set_sizes(ChannelProblem& p, const torch::stable::Tensor& x, Dtype dtype) {
  p.dtype = dtype;
  p.interleaved = is_interleaved(x);
  p.batch = x.size(0);
  p.channels = x.size(1);
  p.rows = x.size(2);
  p.columns = x.size(3);
}

// Scratch of the calling thread, until its next problem.
inline void take_scratch(ChannelProblem& p, int64_t sum_doubles, int64_t channel_floats) {
  thread_local std::vector<double> sums;
  thread_local std::vector<float> channel;
  if (static_cast<int64_t>(sums.size()) < sum_doubles) sums.resize(sum_doubles);
  if (static_cast<int64_t>(channel.size()) < channel_floats) channel.resize(channel_floats);
  p.sums = sums.data();
  p.channel = channel.data();
}

// How many of `count` even parts of a problem are worth a thread.
inline int64_t grain_of(const ChannelProblem& p, int64_t count) {
  constexpr int64_t kElements = 32768;
  return kElements * count / (p.batch * p.channels * p.rows * p.columns + 1) + 1;
}

// x itself where the kernels take its strides, else a copy with the layout of `like`.
inline torch::stable::Tensor walkable(const torch::stable::Tensor& x,
                                      const torch::stable::Tensor& like, Tensors& keep) {
  const bool interleaved = is_interleaved(like);
  const bool unit = x.stride(interleaved ? 1 : 3) == 1;
  if (unit && (!interleaved || is_interleaved(x))) return x;
  torch::stable::Tensor copy = empty_pooled(x, {x.size(0), x.size(1), x.size(2), x.size(3)},
                                            strides_like(like, x.size(1), x.size(2), x.size(3)));
  torch::stable::copy_(copy, x);
  keep.push_back(copy);
  return copy;
}

inline ChannelFeature feature(const torch::stable::Tensor& x) {
  return {const_cast<void*>(x.const_data_ptr()), x.stride(0), x.stride(1), x.stride(2),
          x.stride(3)};
}

// Dense planes are walked as one row each, so that only their last vector can be a partial one.
inline void join_rows(ChannelProblem& p, std::initializer_list<const ChannelFeature*> features) {
  if (p.interleaved) return;
  for (const ChannelFeature* f : features) {
    if (f->data && f->row != p.columns) return;
  }
  p.columns *= p.rows;
  p.rows = 1;
}

}  // namespace lmwp
