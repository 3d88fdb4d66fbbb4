// Images of both kinds of access, several in one launch, under ThreadSanitizer, in three thread
// orders. The argument is the number of a planted fault.
#include <cstdlib>
#include <vector>

inline int fault = 0;

#include "cuda/channel_spatial_attention_fwd.cuh"

namespace {

constexpr int kImages = 3, kChannels = 5, kHidden = 3;

template <typename T>
bool runs(int height, int width) {
  const int elements = kChannels * height * width;
  const std::vector<float> values(2 * 7 * 7, 0.1f);
  const lmwp::cuda::Param parameter{values.data(), true};
  std::vector<T> x(kImages * elements), out(x.size());
  lmwp::cuda::AttentionCall call{};
  call.x = x.data();
  call.out = out.data();
  call.x_step = call.out_step = elements;
  call.reduce = call.expand = {parameter, parameter};
  call.kernel[0] = parameter;
  call.kernel_size[0] = 7;
  call.mean = call.max = true;
  call.batch = kImages;
  call.channels = kChannels;
  call.height = height;
  call.width = width;
  call.hidden = kHidden;
  for (const int order : {0, 1, 2}) {
    host_cuda::machine.order = static_cast<host_cuda::Order>(order);
    if (lmwp::cuda::channel_spatial_attention_fwd<T>(call, {1, 48 << 10}, nullptr)) return false;
  }
  return true;
}

}  // namespace

int main(int, char** arguments) {
  fault = std::atoi(arguments[1]);
  return runs<float>(8, 8) && runs<float>(7, 9) && runs<__half>(8, 8) ? 0 : 1;
}
