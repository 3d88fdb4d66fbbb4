// Tiled and direct branches in one launch, under ThreadSanitizer, in three thread orders.
#include "cuda/depthwise_scales_fwd.cuh"

using lmwp::cuda::DepthwiseBranch;
using lmwp::cuda::Param;

namespace {

using Sizes = std::integer_sequence<int, 3>;

template <typename T>
struct Feature {
  int64_t channels, height, width;
  // Of vectors, so that both start on 16 bytes.
  std::vector<uint4> x{static_cast<std::size_t>(channels * height * width)}, y{x};

  DepthwiseBranch branch(Param parameter) {
    const int64_t plane = height * width;
    return {{{x.data(), {channels * plane, plane, width, 1}},
             {y.data(), {channels * plane, plane, width, 1}},
             parameter,
             parameter,
             parameter,
             parameter},
            1,
            channels,
            height,
            width};
  }
};

template <typename T>
bool runs(int stride, int64_t width) {
  // One tile across and two down, so that neighbouring tiles are neighbouring blocks.
  Feature<T> tiled{3, 40, width}, direct{3, 9, 9};
  const std::vector<float> values(27, 0.5f);
  const Param parameter{values.data(), true};
  const DepthwiseBranch branches[] = {tiled.branch(parameter), direct.branch(parameter)};
  for (const int order : {0, 1, 2}) {
    host_cuda::machine.order = static_cast<host_cuda::Order>(order);
    if (lmwp::cuda::depthwise_scales_fwd<T, Sizes>(branches, 2, 3, stride, 1, nullptr))
      return false;
  }
  return true;
}

}  // namespace

int main() { return runs<float>(1, 64) && runs<__half>(2, 128) ? 0 : 1; }
