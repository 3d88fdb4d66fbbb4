// Runs the stem convolution of one instruction set over small problems, each tensor and all scratch
// in heap blocks of exactly their sizes, and compares with loops in double. Prints nothing and
// returns 0 if all is well. With "fault" as argument the last element of the feature is missing: a
// sanitizer must stop it.
#include <cmath>
#include <cstdio>
#include <string>

#include "cpu/stem_conv2d.h"
#include "planes.h"

namespace {

using lmwp::Dtype;

struct Setting {
  int64_t batch, channels, rows, columns, kernel, stride, out;
  Dtype dtype;
  bool side_by_side;  // the channels of a pixel of the result
};

bool check(const Setting& s, bool fault) {
  lmwp::StemProblem p{};
  p.dtype = s.dtype;
  p.batch = s.batch;
  p.channels = s.channels;
  p.rows = s.rows;
  p.columns = s.columns;
  p.kernel = s.kernel;
  p.stride = s.stride;
  const int64_t taps = s.channels * s.kernel * s.kernel, pixels = p.out_rows() * p.out_columns();
  const Values x = draw(s.batch * s.channels * s.rows * s.columns);
  const Planes planes(x, s.dtype, s.channels, s.rows * s.columns, fault);
  const Planes result(Values(s.batch * s.out * pixels), s.dtype, s.out, pixels, 0, s.side_by_side);
  const Values weights = draw(s.out * taps, 0.25), scales = draw(s.out), shifts = draw(s.out),
               slopes = draw(s.out, 0.25);
  const Parameter weight(weights), scale(scales), shift(shifts), slope(slopes);
  p.layer = {taps, s.out, weight, scale, shift, slope};
  p.x = planes.view;
  p.out = result.view;
  const lmwp::StemKernel kernel = lmwp::LMWP_ISA::stem_conv2d_kernel();
  std::unique_ptr<float[]> packed(new float[kernel.packed_floats(p.layer)]);
  kernel.pack(p.layer, packed.get());
  for (int64_t task = kernel.task_count(p) - 1; task >= 0; --task) {
    std::unique_ptr<float[]> scratch(new float[kernel.scratch_floats(p)]);
    kernel.run(p, packed.get(), task, task + 1, scratch.get());
  }

  const double tolerance = s.dtype == Dtype::float32 ? 1e-4 : 2e-2;
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t d = 0; d < s.out; ++d)
      for (int64_t i = 0; i < pixels; ++i) {
        const int64_t row = i / p.out_columns() * s.stride - s.kernel / 2;
        const int64_t column = i % p.out_columns() * s.stride - s.kernel / 2;
        double z = 0;
        for (int64_t t = 0; t < taps; ++t) {
          const int64_t c = t / (s.kernel * s.kernel), r = row + t / s.kernel % s.kernel;
          const int64_t at = column + t % s.kernel;
          if (r < 0 || r >= s.rows || at < 0 || at >= s.columns) continue;
          z += weights[d * taps + t] * x[((n * s.channels + c) * s.rows + r) * s.columns + at];
        }
        const double expected = prelu(scales[d] * z + shifts[d], slopes[d]);
        const double got = result.at((n * s.out + d) * pixels + i);
        if (std::abs(got - expected) <= tolerance * (1 + std::abs(expected))) continue;
        std::fprintf(stderr, "%ldx%ldx%ld k %ld s %ld to %ld: channel %ld of %ld is %g, not %g\n",
                     s.channels, s.rows, s.columns, s.kernel, s.stride, s.out, d, i, got, expected);
        return false;
      }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const bool fault = argc > 1 && std::string(argv[1]) == "fault";
  int64_t turn = 0;
  for (Dtype dtype : {Dtype::float32, Dtype::float16, Dtype::bfloat16})
    for (int64_t columns : {1, 2, 7, 13, 16, 25, 51})
      for (int64_t stride : {1, 2})
        for (bool pixels : {false, true}) {
          ++turn;
          const Setting s{1 + turn % 2,
                          1 + turn % 4,
                          1 + 3 * turn % 11,
                          columns,
                          1 + turn % 4 * 2,
                          stride,
                          1 + 5 * turn % 37,
                          dtype,
                          pixels};
          if (!check(s, fault)) return 1;
        }
  return 0;
}
