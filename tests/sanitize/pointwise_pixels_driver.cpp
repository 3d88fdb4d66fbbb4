// Runs the 1 x 1 convolution of pixels of one instruction set over small problems, each tensor and
// all scratch in heap blocks of exactly their sizes, and compares with loops in double. Prints
// nothing and returns 0 if all is well. With "fault" as argument the last element of the feature is
// missing: a sanitizer must stop it.
#include <cmath>
#include <cstdio>
#include <string>

#include "cpu/pointwise_pixels.h"
#include "planes.h"

namespace {

using lmwp::Dtype;

bool check(int64_t batch, int64_t in, int64_t out, int64_t pixels, Dtype dtype, bool epilogue,
           bool fault) {
  const Values values = draw(batch * in * pixels);
  const Planes x(values, dtype, in, pixels, fault, true);
  const Planes y(Values(batch * out * pixels), dtype, out, pixels, 0, true);
  const Values weights = draw(out * in, 0.25), scales = draw(out), shifts = draw(out),
               slopes = draw(out, 0.25);
  const Parameter weight(weights), scale(scales), shift(shifts), slope(slopes);
  lmwp::PointwiseProblem p{dtype,  batch, pixels, {in, out, weight, nullptr, nullptr, nullptr},
                           x.view, y.view};
  if (epilogue) p.layer = {in, out, weight, scale, shift, slope};
  const lmwp::PointwiseKernel kernel = lmwp::LMWP_ISA::pointwise_pixels_kernel();
  std::unique_ptr<float[]> packed(new float[kernel.packed_floats(p.layer)]);
  kernel.pack(p.layer, packed.get());
  for (int64_t task = kernel.task_count(p) - 1; task >= 0; --task) {
    std::unique_ptr<float[]> scratch(new float[kernel.scratch_floats(p)]);
    kernel.run(p, packed.get(), task, task + 1, scratch.get());
  }
  const double tolerance = dtype == Dtype::float32 ? 1e-4 : 2e-2;
  for (int64_t n = 0; n < batch; ++n)
    for (int64_t d = 0; d < out; ++d)
      for (int64_t i = 0; i < pixels; ++i) {
        double expected = 0;
        for (int64_t c = 0; c < in; ++c) {
          expected += weights[d * in + c] * values[(n * in + c) * pixels + i];
        }
        if (epilogue) expected = prelu(scales[d] * expected + shifts[d], slopes[d]);
        const double got = y.at((n * out + d) * pixels + i);
        if (std::abs(got - expected) <= tolerance * (1 + std::abs(expected))) continue;
        std::fprintf(stderr, "%ld to %ld, %ld pixels: channel %ld of %ld is %g, not %g\n", in, out,
                     pixels, d, i, got, expected);
        return false;
      }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const bool fault = argc > 1 && std::string(argv[1]) == "fault";
  int64_t turn = 0;
  for (Dtype dtype : {Dtype::float32, Dtype::float16, Dtype::bfloat16})
    for (int64_t out : {1, 5, 8, 16, 17, 32, 33, 48, 64})
      for (int64_t pixels : {1, 6, 12, 13, 50, 192, 403}) {
        ++turn;
        if (!check(1 + turn % 2, 1 + 7 * turn % 41, out, pixels, dtype, turn % 3, fault)) return 1;
      }
  return 0;
}
