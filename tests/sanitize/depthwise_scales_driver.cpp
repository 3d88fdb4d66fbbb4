// Runs the depthwise kernels of one instruction set over small problems, each tensor in a heap
// block of exactly its size, and compares with a loop in double; gradients must be the adjoints of
// the forward pass. Prints nothing and returns 0 if all is well. With "fault" as argument the last
// element of an input is missing: a sanitizer must stop it.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cpu/depthwise_scales.h"

namespace {

using lmwp::Dtype;

struct Shape {
  int64_t batch, channels, height, width;
};

struct Settings {
  int kernel, stride;
  int64_t dilation;
  Dtype dtype;
  bool channels_last, epilogue;
};

std::mt19937 random_bits(0);

double uniform() { return std::uniform_real_distribution<double>(-1, 1)(random_bits); }

// Values with few mantissa bits, so that every dtype holds them exactly.
double coarse() { return std::round(uniform() * 64) / 64; }

size_t size_of(Dtype dtype) { return dtype == Dtype::float32 ? 4 : 2; }

void put(void* data, int64_t i, double value, Dtype dtype) {
  const float f = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  if (dtype == Dtype::float32) {
    std::memcpy(static_cast<char*>(data) + 4 * i, &f, 4);
    return;
  }
  uint16_t half = static_cast<uint16_t>(bits >> 16);  // bfloat16
  if (dtype == Dtype::float16) {
    const uint32_t magnitude = bits & 0x7fffffff;
    half = static_cast<uint16_t>((bits >> 16) & 0x8000);
    if (magnitude != 0) half |= static_cast<uint16_t>((magnitude - (112u << 23)) >> 13);
  }
  std::memcpy(static_cast<char*>(data) + 2 * i, &half, 2);
}

double get(const void* data, int64_t i, Dtype dtype) {
  if (dtype == Dtype::float32) {
    float f;
    std::memcpy(&f, static_cast<const char*>(data) + 4 * i, 4);
    return f;
  }
  uint16_t half;
  std::memcpy(&half, static_cast<const char*>(data) + 2 * i, 2);
  if (dtype == Dtype::bfloat16) {
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
  }
  const int exponent = half >> 10 & 31, mantissa = half & 1023;
  const double magnitude = exponent == 0    ? std::ldexp(mantissa, -24)
                           : exponent == 31 ? (mantissa ? NAN : INFINITY)
                                            : std::ldexp(1024 + mantissa, exponent - 25);
  return half & 0x8000 ? -magnitude : magnitude;
}

void set_strides(int64_t* strides, const Shape& s, bool channels_last) {
  const int64_t dense[4] = {s.channels * s.height * s.width, s.height * s.width, s.width, 1};
  const int64_t last[4] = {s.channels * s.height * s.width, 1, s.width * s.channels, s.channels};
  std::memcpy(strides, channels_last ? last : dense, sizeof(dense));
}

int64_t offset(const int64_t* strides, int64_t n, int64_t c, int64_t h, int64_t w) {
  return n * strides[0] + c * strides[1] + h * strides[2] + w * strides[3];
}

std::vector<float> parameters(int64_t count) {
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(uniform());
  return values;
}

// The sum of the products of two lists, and a bound of its rounding.
struct Product {
  double sum = 0, size = 0;
  void add(double a, double b) {
    sum += a * b;
    size += std::abs(a * b);
  }
};

bool equal(const char* what, const Product& a, const Product& b, double tolerance) {
  if (std::abs(a.sum - b.sum) <= tolerance * (1 + a.size + b.size)) return true;
  std::fprintf(stderr, "%s: %g, expected %g\n", what, a.sum, b.sum);
  return false;
}

Product product(const void* a, const void* b, int64_t count, Dtype dtype) {
  Product result;
  for (int64_t i = 0; i < count; ++i) result.add(get(a, i, dtype), get(b, i, dtype));
  return result;
}

// <dx, x> and <dw, w> equal <dy, y> for the gradients dx, dw of a convolution without epilogue.
bool check_gradients(const lmwp::DepthwiseProblem& problem, const void* y, double tolerance) {
  const lmwp::DepthwiseBranch& branch = *problem.branches;
  const int64_t x_count = branch.batch * branch.channels * branch.height * branch.width;
  const int64_t y_count = branch.batch * branch.channels * branch.out_height * branch.out_width;
  const int64_t taps = problem.kernel * problem.kernel, w_count = branch.channels * taps;
  const size_t bytes = size_of(problem.dtype);
  std::unique_ptr<char[]> dy(new char[y_count * bytes]), dx(new char[x_count * bytes]);
  for (int64_t i = 0; i < y_count; ++i) put(dy.get(), i, coarse(), problem.dtype);
  const Product expected = product(dy.get(), y, y_count, problem.dtype);

  lmwp::DepthwiseBranch weighed = branch;
  weighed.y = dy.get();
  lmwp::DepthwiseProblem of_weight = problem;
  of_weight.branches = &weighed;
  const lmwp::DepthwiseWeightKernel weight_kernel =
      lmwp::LMWP_ISA::depthwise_scales_weight_kernel();
  const int64_t tasks = weight_kernel.task_count(of_weight);
  std::unique_ptr<float[]> partials(new float[tasks * taps]), dw(new float[w_count]);
  std::unique_ptr<float[]> scratch(new float[weight_kernel.scratch_floats(of_weight)]);
  for (int64_t task = tasks - 1; task >= 0; --task) {
    weight_kernel.run(of_weight, task, task + 1, partials.get(), scratch.get());
  }
  float* const gradients[] = {dw.get()};
  weight_kernel.reduce(of_weight, partials.get(), gradients);
  const Product by_weight = product(dw.get(), branch.weight, w_count, Dtype::float32);

  std::vector<float> reversed(w_count);
  for (int64_t i = 0; i < w_count; ++i) {
    reversed[i - i % taps + taps - 1 - i % taps] = branch.weight[i];
  }
  lmwp::DepthwiseBranch back = branch;
  back.x = dy.get();
  back.y = dx.get();
  back.weight = reversed.data();
  back.out_height = branch.height;
  back.out_width = branch.width;
  std::memcpy(back.x_stride, branch.y_stride, sizeof(back.x_stride));
  std::memcpy(back.y_stride, branch.x_stride, sizeof(back.y_stride));
  const lmwp::DepthwiseProblem of_x{
      &back, 1, problem.kernel, 1, problem.dilation, problem.dtype, problem.stride == 2};
  const lmwp::DepthwiseKernel kernel = lmwp::LMWP_ISA::depthwise_scales_kernel();
  scratch.reset(new float[kernel.scratch_floats(of_x)]);
  for (int64_t task = kernel.task_count(of_x) - 1; task >= 0; --task) {
    kernel.run(of_x, task, task + 1, scratch.get());
  }
  const Product by_x = product(dx.get(), branch.x, x_count, problem.dtype);
  return equal("gradient of the weight", by_weight, expected, tolerance) &&
         equal("gradient of the input", by_x, expected, tolerance);
}

bool check(lmwp::DepthwiseKernel kernel, const Shape& shape, const Settings& s, bool fault) {
  const Shape out{shape.batch, shape.channels, (shape.height - 1) / s.stride + 1,
                  (shape.width - 1) / s.stride + 1};
  const int64_t x_count = shape.batch * shape.channels * shape.height * shape.width;
  const int64_t y_count = out.batch * out.channels * out.height * out.width;
  const size_t bytes = size_of(s.dtype);
  std::unique_ptr<char[]> x(new char[(x_count - fault) * bytes]), y(new char[y_count * bytes]);
  for (int64_t i = 0; i < x_count - fault; ++i) put(x.get(), i, coarse(), s.dtype);
  std::memset(y.get(), 0xff, y_count * bytes);  // NaN in every dtype
  const auto weight = parameters(shape.channels * s.kernel * s.kernel);
  const auto scale = parameters(shape.channels), shift = parameters(shape.channels);
  const auto slope = parameters(shape.channels);

  lmwp::DepthwiseBranch branch{x.get(),
                               y.get(),
                               weight.data(),
                               s.epilogue ? scale.data() : nullptr,
                               s.epilogue ? shift.data() : nullptr,
                               s.epilogue ? slope.data() : nullptr,
                               shape.batch,
                               shape.channels,
                               shape.height,
                               shape.width,
                               out.height,
                               out.width,
                               {},
                               {}};
  set_strides(branch.x_stride, shape, s.channels_last);
  set_strides(branch.y_stride, out, s.channels_last);
  const lmwp::DepthwiseProblem problem{&branch, 1, s.kernel, s.stride, s.dilation, s.dtype, false};
  const int64_t tasks = kernel.task_count(problem);
  std::unique_ptr<float[]> scratch(new float[kernel.scratch_floats(problem)]);
  // Task by task, last first: a task must not lean on another's scratch or order.
  for (int64_t task = tasks - 1; task >= 0; --task) {
    kernel.run(problem, task, task + 1, scratch.get());
  }

  const int64_t padding = s.dilation * (s.kernel / 2);
  const double tolerance = s.dtype == Dtype::float32   ? 1e-5
                           : s.dtype == Dtype::float16 ? 4e-3
                                                       : 3e-2;
  for (int64_t n = 0; n < out.batch; ++n)
    for (int64_t c = 0; c < out.channels; ++c)
      for (int64_t h = 0; h < out.height; ++h)
        for (int64_t w = 0; w < out.width; ++w) {
          double sum = 0;
          for (int i = 0; i < s.kernel; ++i)
            for (int j = 0; j < s.kernel; ++j) {
              const int64_t row = h * s.stride - padding + i * s.dilation;
              const int64_t column = w * s.stride - padding + j * s.dilation;
              if (row < 0 || row >= shape.height || column < 0 || column >= shape.width) continue;
              sum += weight[(c * s.kernel + i) * s.kernel + j] *
                     get(x.get(), offset(branch.x_stride, n, c, row, column), s.dtype);
            }
          if (s.epilogue) {
            sum = scale[c] * sum + shift[c];
            if (sum < 0) sum *= slope[c];
          }
          const double got = get(y.get(), offset(branch.y_stride, n, c, h, w), s.dtype);
          if (!(std::abs(got - sum) <= tolerance * (1 + std::abs(sum)))) {
            std::fprintf(stderr,
                         "k%d s%d d%d dtype %d last %d: %ldx%ldx%ldx%ld at %ld %ld %ld %ld: %g, "
                         "expected %g\n",
                         s.kernel, s.stride, static_cast<int>(s.dilation),
                         static_cast<int>(s.dtype), s.channels_last, shape.batch, shape.channels,
                         shape.height, shape.width, n, c, h, w, got, sum);
            return false;
          }
        }
  return s.epilogue || check_gradients(problem, y.get(), tolerance);
}

}  // namespace

int main(int argc, char** argv) {
  const bool fault = argc > 1 && std::string(argv[1]) == "fault";
  const lmwp::DepthwiseKernel kernel = lmwp::LMWP_ISA::depthwise_scales_kernel();
  const lmwp::DepthwiseKernel of_pixels = lmwp::LMWP_ISA::depthwise_pixels_kernel();
  const int64_t widths[] = {1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 47, 49};
  const int64_t heights[] = {1, 2, 5, 8, 9, 23};
  const int64_t dilations[] = {1, 2, 3, 16};
  int turn = 0;
  for (int k : {1, 3, 5, 7})
    for (int stride : {1, 2})
      for (Dtype dtype : {Dtype::float32, Dtype::float16, Dtype::bfloat16})
        for (int64_t width : widths) {
          ++turn;
          const Shape shape{1 + turn % 2, 1 + turn % 3, heights[turn % 6], width};
          const Settings settings{k,     stride,        dilations[turn % 4],
                                  dtype, turn % 5 == 0, turn % 2 != 0};
          if (!check(kernel, shape, settings, fault)) return 1;
          const Shape wide{1, 1 + turn % 39, heights[turn % 6], width};
          const Settings last{k, stride, dilations[turn % 4], dtype, true, true};
          if (turn % 5 == 0 && !check(of_pixels, wide, last, fault)) return 1;
        }
  // Planes of more than one task, also with dilations that reach past the map.
  for (bool channels_last : {false, true})
    for (int64_t dilation : {1, 7, 100}) {
      const Settings settings{3, 1, dilation, Dtype::float32, channels_last, dilation == 1};
      if (!check(kernel, {1, 2, 700, 97}, settings, fault)) return 1;
    }
  return 0;
}
