// The backward pass of tiled and direct branches, under ThreadSanitizer, in three thread orders.
#include "cuda/depthwise_scales_bwd.cuh"

using lmwp::cuda::DepthwiseBackwardBranch;
using lmwp::cuda::DepthwiseGradBranch;

namespace {

using Sizes = std::integer_sequence<int, 3>;

template <typename T>
struct Feature {
  int64_t channels, height, width, out_height, out_width;
  // Of vectors, so that all start on 16 bytes.
  std::vector<uint4> x{static_cast<std::size_t>(channels * height * width)}, dy{x}, dz{x}, dx{x};
  std::vector<float> parameters = std::vector<float>(9 * channels, 0.5f);
  std::vector<float> gradients[4] = {parameters, parameters, parameters, parameters};

  DepthwiseBackwardBranch branch() {
    DepthwiseBackwardBranch branch{};
    const int64_t plane = height * width;
    const int64_t out_plane = out_height * out_width;
    branch.x = {x.data(), {channels * plane, plane, width, 1}};
    branch.dx = {dx.data(), {channels * plane, plane, width, 1}};
    branch.dy = {dy.data(), {channels * out_plane, out_plane, out_width, 1}};
    branch.dz = {dz.data(), {channels * out_plane, out_plane, out_width, 1}};
    branch.weight = branch.scale = branch.shift = branch.slope = {parameters.data(), true};
    branch.grad_weight = {gradients[0].data(), true};
    branch.grad_scale = {gradients[1].data(), true};
    branch.grad_shift = {gradients[2].data(), true};
    branch.grad_slope = {gradients[3].data(), true};
    branch.batch = 1;
    branch.channels = channels;
    branch.height = height;
    branch.width = width;
    return branch;
  }
};

template <typename T>
bool runs(int stride, int64_t width) {
  // One tile across and two down, so that neighbouring tiles are neighbouring blocks.
  Feature<T> tiled{3, 40 * stride, width * stride, 40, width};
  Feature<T> direct{3, 9 * stride, 67 * stride, 9, 67};
  const std::vector<DepthwiseBackwardBranch> branches{tiled.branch(), direct.branch()};
  const int64_t floats = lmwp::cuda::depthwise_scales_bwd_weight_scratch<T, Sizes>(
      std::vector<DepthwiseGradBranch>(branches.begin(), branches.end()), 3, stride, 1);
  std::vector<float> scratch(floats);
  for (const int order : {0, 1, 2}) {
    host_cuda::machine.order = static_cast<host_cuda::Order>(order);
    if (lmwp::cuda::depthwise_scales_bwd<T, Sizes>(branches, 3, stride, 1, scratch.data(),
                                                   nullptr)) {
      return false;
    }
  }
  return true;
}

}  // namespace

int main() { return runs<float>(1, 64) && runs<__half>(2, 128) ? 0 : 1; }
