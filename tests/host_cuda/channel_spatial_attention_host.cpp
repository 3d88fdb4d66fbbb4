// The channel_spatial_attention kernel on the host for one element type, behind plain C functions
// for ctypes. -DELEMENT=float|__half|__nv_bfloat16

// The active one of the faults that a test has planted in its copy of the kernel; 0 for none.
inline int fault = 0;

#include "cuda/channel_spatial_attention_fwd.cuh"

using lmwp::cuda::AttentionCall;
using lmwp::cuda::AttentionPlan;

static_assert(sizeof(AttentionCall) == 200, "Call in the cases of this kernel has this layout");

namespace {

constexpr int kSharedBytes = 227 << 10;  // of a block on sm_90

}  // namespace

extern "C" {

// As in a process of its own: no kernel has been allowed anything.
void set_fault(int number) {
  fault = number;
  host_cuda::machine.allowed.clear();
}

// order: 0 forward, 1 reverse, 2 random.
void set_order(int order, unsigned seed) {
  host_cuda::machine.order = static_cast<host_cuda::Order>(order);
  host_cuda::machine.random.seed(seed);
}

const char* report() { return host_cuda::machine.report.c_str(); }

int run(const AttentionCall* call, int multiprocessors) {
  return lmwp::cuda::channel_spatial_attention_fwd<ELEMENT>(*call, {multiprocessors, kSharedBytes},
                                                            nullptr);
}

// Shared bytes, threads, whether accesses are of 16 bytes, lanes of a plane and pixels of a warp.
int plan(const AttentionCall* call, int multiprocessors, int* result) {
  AttentionPlan plan{};
  if (!lmwp::cuda::plan_attention<ELEMENT>(*call, {multiprocessors, kSharedBytes}, plan)) return 0;
  result[0] = plan.shared_bytes;
  result[1] = plan.threads;
  result[2] = plan.vectorised;
  result[3] = plan.launch.team;
  result[4] = plan.launch.warp_pixels;
  return 1;
}
}
