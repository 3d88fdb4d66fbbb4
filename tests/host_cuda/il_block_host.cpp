// The il_block kernel on the host for one element type, behind plain C functions for ctypes.
// -DELEMENT=float|__half|__nv_bfloat16
#include "cuda/il_block_fwd.cuh"

using lmwp::cuda::IlBlockCall;
using lmwp::cuda::IlBlockPlan;

static_assert(sizeof(IlBlockCall) == 2480, "Call in il_block_cases.py has this layout");

extern "C" {

// order: 0 forward, 1 reverse, 2 random.
void set_order(int order, unsigned seed) {
  host_cuda::machine.order = static_cast<host_cuda::Order>(order);
  host_cuda::machine.random.seed(seed);
}

const char* report() { return host_cuda::machine.report.c_str(); }

int run(const IlBlockCall* call, int multiprocessors) {
  return lmwp::cuda::il_block_fwd<ELEMENT>(*call, multiprocessors, nullptr);
}

// Rows and columns of a tile, channels of a thread and of a chunk, for one output.
int cut(const IlBlockCall* call, int multiprocessors, int output, int* result) {
  IlBlockPlan plan{};
  if (!plan_il_block(*call, lmwp::cuda::kBlocksEach * multiprocessors, plan)) return 0;
  const auto& task = plan.launch.task[output];
  result[0] = task.tile_rows;
  result[1] = task.tile_columns;
  result[2] = task.thread_channels;
  result[3] = task.chunk;
  return 1;
}
}
