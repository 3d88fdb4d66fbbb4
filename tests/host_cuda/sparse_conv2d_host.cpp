// The CUDA kernel of sparse_conv2d on the host for one element type, behind plain C functions for
// ctypes. -DELEMENT=float|__half|__nv_bfloat16
#include "cuda/sparse_conv2d_fwd.cuh"

using lmwp::cuda::SparseConvCall;

static_assert(sizeof(SparseConvCall) == 192, "Call in sparse_conv2d_cases.py has this layout");

extern "C" {

// order: 0 forward, 1 reverse, 2 random.
void set_order(int order, unsigned seed) {
  host_cuda::machine.order = static_cast<host_cuda::Order>(order);
  host_cuda::machine.random.seed(seed);
}

const char* report() { return host_cuda::machine.report.c_str(); }

int run(const SparseConvCall* call, int multiprocessors) {
  return lmwp::cuda::sparse_conv2d_fwd<ELEMENT>(*call, multiprocessors, nullptr);
}

bool moves_in_vectors(const SparseConvCall* call) {
  return lmwp::cuda::moves_in_vectors<ELEMENT>(*call);
}
}
