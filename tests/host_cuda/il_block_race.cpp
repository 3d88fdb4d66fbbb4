// Outputs of two scales in one launch, of several tiles each, under ThreadSanitizer, in three
// thread orders.
#include <vector>

#include "cuda/il_block_fwd.cuh"

using lmwp::cuda::IlBlockCall;
using lmwp::cuda::OctaveInput;
using lmwp::cuda::OctaveOutput;
using lmwp::cuda::Param;

namespace {

constexpr int kHeight = 18, kWidth = 40, kChannels = 5;

template <typename T>
bool runs(int kernel, int multiprocessors) {
  const std::vector<float> values(100 * kChannels * kChannels, 0.1f);
  const Param parameter{values.data(), true};
  std::vector<T> x[2], y[2];
  IlBlockCall call{};
  for (int b = 0; b < 2; ++b) {
    const int height = kHeight >> b, width = kWidth >> b;
    x[b].resize(kChannels * height * width);
    y[b].resize(x[b].size());
    const int64_t plane = height * width;
    call.input[b] = {
        x[b].data(),  {kChannels * plane, plane, width, 1}, kChannels, height, width, b,
        b * kChannels};
    OctaveOutput& output = call.output[b];
    output.y = y[b].data();
    std::copy_n(call.input[b].stride, 4, output.stride);
    output.channels = kChannels;
    output.height = height;
    output.width = width;
    output.branch = b;
    output.row = b * kChannels;
    for (Param& weight : output.depthwise) weight = parameter;
    for (int layer = 0; layer < lmwp::cuda::kLayers; ++layer) {
      output.scale[layer] = output.shift[layer] = output.slope[layer] = parameter;
    }
  }
  call.input_count = call.output_count = 2;
  call.weight = parameter;
  call.columns = 2 * kChannels;
  call.kernel = kernel;
  call.batch = 1;
  call.cross_scale = true;
  for (const int order : {0, 1, 2}) {
    host_cuda::machine.order = static_cast<host_cuda::Order>(order);
    if (lmwp::cuda::il_block_fwd<T>(call, multiprocessors, nullptr)) return false;
  }
  return true;
}

}  // namespace

int main() { return runs<float>(1, 0) && runs<float>(3, 0) && runs<__half>(3, 1000) ? 0 : 1; }
