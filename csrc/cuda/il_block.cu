// lmwp_ops::il_block_cuda. Only torch's stable ABI is used.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "cuda/il_block_fwd.cuh"
#include "cuda/torch_arguments.h"

namespace lmwp::cuda {
namespace {

using torch::stable::Tensor;
using Counts = std::vector<int64_t>;

constexpr const char* kOp = "il_block_cuda";

// The branches that are present in a list of channel counts.
struct Branches {
  std::vector<int> scale, first, channels;  // `first`: channels of all branches before
  int total = 0;

  explicit Branches(const Counts& counts) {
    STD_TORCH_CHECK(counts.size() <= kMaxScales, kOp, ": expected at most ", kMaxScales,
                    " branches, got ", counts.size());
    for (std::size_t i = 0; i < counts.size(); ++i) {
      STD_TORCH_CHECK(counts[i] >= 0 && counts[i] <= kMaxSide, kOp, ": channels: expected 0 to ",
                      kMaxSide, ", got ", counts[i]);
      if (counts[i] > 0) {
        scale.push_back(static_cast<int>(i));
        first.push_back(total);
        channels.push_back(static_cast<int>(counts[i]));
      }
      total += static_cast<int>(counts[i]);
    }
  }
  int count() const { return static_cast<int>(scale.size()); }
};

// The arguments of a call as the kernel takes them; it owns what had to be copied or allocated.
class Call {
 public:
  Call(const Tensors& xs, const Tensor& weight, const Counts& in_channels,
       const Counts& out_channels, bool entry_pool)
      : xs_(xs), in_(in_channels), out_(out_channels), step_(entry_pool ? 2 : 1) {
    STD_TORCH_CHECK(!xs.empty() && static_cast<int>(xs.size()) == in_.count() && out_.count() > 0,
                    kOp, ": expected one tensor per input branch with channels");
    STD_TORCH_CHECK(weight.dim() == 4 && (weight.size(3) == 1 || weight.size(3) == 3), kOp,
                    ": weight: expected [out, in, k, k] with k 1 or 3");
    call_.batch = xs[0].size(0);
    call_.entry_pool = entry_pool;
    call_.cross_scale = true;
    call_.kernel = static_cast<int>(weight.size(3));
    call_.columns = in_.total;
    const int64_t taps = int64_t{out_.total} * in_.total * call_.kernel * call_.kernel;
    call_.weight = parameter({weight}, 0, taps);
    call_.input_count = in_.count();
    for (int i = 0; i < in_.count(); ++i) add_input(i);
  }

  void add_outputs(const Tensors& depthwise, const Tensors& scale, const Tensors& shift,
                   const Tensors& slope) {
    const auto fits = [&](const Tensors& list, int layers) {
      return static_cast<int>(list.size()) == layers * out_.count();
    };
    STD_TORCH_CHECK(fits(depthwise, kLayers - 1) && scale.size() == shift.size() &&
                        (scale.empty() || fits(scale, kLayers)) &&
                        (slope.empty() || fits(slope, kLayers)),
                    kOp, ": expected one parameter per layer and output branch");
    call_.output_count = out_.count();
    for (int j = 0; j < out_.count(); ++j) {
      OctaveOutput& output = call_.output[j];
      output.channels = out_.channels[j];
      output.branch = out_.scale[j];
      output.row = out_.first[j];
      set_size(output);
      Tensor y = empty_like_layout(xs_[0], output.channels, output.height, output.width);
      output.y = y.mutable_data_ptr();
      for (int d = 0; d < 4; ++d) output.stride[d] = y.stride(d);
      ys_.push_back(y);
      for (int layer = 0; layer < kLayers; ++layer) {
        const int i = layer * out_.count() + j;
        output.scale[layer] = parameter(scale, i, output.channels);
        output.shift[layer] = parameter(shift, i, output.channels);
        output.slope[layer] = parameter(slope, i, output.channels);
        if (layer > 0) {
          output.depthwise[layer - 1] = parameter(depthwise, i - out_.count(), 9 * output.channels);
        }
      }
    }
  }

  Tensors run() {
    const int32_t device = xs_[0].get_device();
    const torch::stable::accelerator::DeviceGuard guard(device);
    int multiprocessors = 0;
    STD_CUDA_CHECK(
        cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
    const cudaStream_t stream = current_stream(device);
    STD_CUDA_CHECK(for_dtype(kOp, xs_[0], [&](auto element) {
      return il_block_fwd<decltype(element)>(call_, multiprocessors, stream);
    }));
    return ys_;
  }

 private:
  void add_input(int i) {
    const Tensor& x = xs_[i];
    STD_TORCH_CHECK(x.is_cuda() && x.dim() == 4 && x.size(1) == in_.channels[i] &&
                        x.size(0) == call_.batch && x.scalar_type() == xs_[0].scalar_type() &&
                        x.get_device() == xs_[0].get_device(),
                    kOp, ": xs: expected 4-D tensors of one dtype and batch size on one GPU");
    STD_TORCH_CHECK(
        x.size(2) >= step_ && x.size(3) >= step_ && x.size(2) <= kMaxSide && x.size(3) <= kMaxSide,
        kOp, ": xs: expected at most ", kMaxSide, " rows and columns, and pixels to pool");
    OctaveInput& input = call_.input[i];
    input.x = x.const_data_ptr();
    for (int d = 0; d < 4; ++d) input.stride[d] = x.stride(d);
    input.channels = in_.channels[i];
    input.height = static_cast<int>(x.size(2) / step_);
    input.width = static_cast<int>(x.size(3) / step_);
    input.scale = in_.scale[i];
    input.column = in_.first[i];
    // Pooling by maxima needs branches of exactly half the size, rounded down, per scale.
    const OctaveInput& finest = call_.input[0];
    const int steps = input.scale - finest.scale;
    STD_TORCH_CHECK(input.height == finest.height >> steps && input.width == finest.width >> steps,
                    kOp, ": xs: expected sizes that halve from branch to branch");
  }

  // That of the input branch of the same scale, else that of the finest one brought there.
  void set_size(OctaveOutput& output) const {
    const OctaveInput& finest = call_.input[0];
    const int down = output.branch - finest.scale;
    output.height = down > 0 ? finest.height >> down : finest.height << -down;
    output.width = down > 0 ? finest.width >> down : finest.width << -down;
    const bool fits = output.height > 0 && output.width > 0 && output.height <= kMaxSide &&
                      output.width <= kMaxSide;
    STD_TORCH_CHECK(fits, kOp, ": xs: expected outputs of 1 to ", kMaxSide, " rows and columns");
  }

  Param parameter(const Tensors& list, std::size_t i, int64_t count) {
    return lmwp::cuda::parameter(kOp, list, i, xs_[0], count, keep_);
  }

  const Tensors& xs_;
  const Branches in_, out_;
  const int step_;  // pixels a side that the entry pool brings to one
  IlBlockCall call_{};
  Tensors ys_, keep_;
};

Tensors il_block(const Tensors& xs, const Tensor& weight, const Tensors& depthwise,
                 const Tensors& scale, const Tensors& shift, const Tensors& slope,
                 const Counts& in_channels, const Counts& out_channels, bool entry_pool) {
  Call call(xs, weight, in_channels, out_channels, entry_pool);
  call.add_outputs(depthwise, scale, shift, slope);
  return call.run();
}

}  // namespace
}  // namespace lmwp::cuda

STABLE_TORCH_LIBRARY_IMPL(lmwp_ops, CUDA, m) {
  m.impl("il_block_cuda", TORCH_BOX(&lmwp::cuda::il_block));
}
