// Rows of blocks that take several stages and several steps of a warp, under ThreadSanitizer, in
// three thread orders.
#include <numeric>
#include <vector>

#include "cuda/sparse_conv2d_fwd.cuh"

using lmwp::cuda::Param;
using lmwp::cuda::SparseConvCall;

namespace {

constexpr int kInputs = 40, kOutputs = 36;

template <typename T>
bool runs(int rows, int64_t pixels, int multiprocessors) {
  const int block_rows = kOutputs / rows;
  std::vector<T> x(kInputs * pixels), y(kOutputs * pixels);
  std::vector<int32_t> offset(block_rows + 1), column(block_rows * kInputs);
  for (int i = 0; i <= block_rows; ++i) offset[i] = i * kInputs;
  for (int i = 0; i < block_rows; ++i) {
    std::iota(&column[i * kInputs], &column[i * kInputs] + kInputs, 0);
  }
  const std::vector<float> values(kOutputs * kInputs, 0.1f);
  SparseConvCall call{};
  call.x = x.data();
  call.y = y.data();
  call.x_step[0] = kInputs * pixels;
  call.y_step[0] = kOutputs * pixels;
  call.x_step[1] = call.y_step[1] = call.pixels = pixels;
  call.batch = call.slabs = call.columns = 1;
  call.inputs = call.group_inputs = kInputs;
  call.outputs = call.group_outputs = kOutputs;
  call.offset = offset.data();
  call.column = column.data();
  call.blocks = block_rows * kInputs;
  call.rows = rows;
  call.values = call.bias = call.scale = call.shift = call.slope = Param{values.data(), true};
  for (const int order : {0, 1, 2}) {
    host_cuda::machine.order = static_cast<host_cuda::Order>(order);
    if (lmwp::cuda::sparse_conv2d_fwd<T>(call, multiprocessors, nullptr)) return false;
  }
  return true;
}

}  // namespace

int main() {
  return runs<float>(1, 135, 0) && runs<float>(4, 16, 1) && runs<__half>(4, 264, 1) ? 0 : 1;
}
