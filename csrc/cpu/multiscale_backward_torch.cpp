// The gradients of goctconv2d and dilated_bank as torch ops.
#include <algorithm>

#include "cpu/epilogue_backward_torch.h"
#include "cpu/multiscale_conv_torch.h"
#include "cpu/multiscale_weight.h"

namespace lmwp {
namespace {

using torch::stable::Tensor;

void sum_products(const WeightProblem& problem) {
  static const MultiscaleWeightKernel kernel = LMWP_BEST_KERNEL(multiscale_weight_kernel);
  std::vector<float> partials(kernel.partial_floats(problem));
  const int64_t scratch_floats = kernel.scratch_floats(problem);
  torch::stable::parallel_for(0, kernel.task_count(problem), 1, [&](int64_t begin, int64_t end) {
    kernel.run(problem, begin, end, partials.data(), thread_scratch(scratch_floats));
  });
  kernel.reduce(problem, partials.data());
}

// Writes [in, row of outputs, k, k] with the taps in reverse order from [out, in, k, k].
void transpose(const float* weight, int64_t out, int64_t in, int64_t area, float* to, int64_t row) {
  for (int64_t o = 0; o < out; ++o) {
    for (int64_t i = 0; i < in; ++i) {
      for (int64_t k = 0; k < area; ++k) {
        to[i * row + o * area + area - 1 - k] = *weight++;
      }
    }
  }
}

Tensor zeros(std::initializer_list<int64_t> sizes) {
  Tensor zero = empty_floats(sizes);
  std::fill_n(floats(zero), zero.numel(), 0.0f);
  return zero;
}

ConvOutput output_of(const Tensor& y, Size size, const std::vector<ConvTerm>& terms,
                     const ConvGroup& group) {
  return {y.mutable_data_ptr(),
          y.size(1),
          size.height,
          size.width,
          {y.stride(0), y.stride(1), y.stride(2), y.stride(3)},
          terms.data(),
          static_cast<int64_t>(terms.size()),
          &group,
          1,
          {},
          nullptr,
          nullptr,
          0,
          0};
}

void check_gradient(const char* op, const Tensor& dy, const Tensor& x, int64_t channels,
                    Size size) {
  STD_TORCH_CHECK(dy.is_cpu() && dy.scalar_type() == x.scalar_type() && dy.dim() == 4 &&
                      dy.size(0) == x.size(0) && dy.size(1) == channels &&
                      dy.size(2) == size.height && dy.size(3) == size.width,
                  op, ": grads: expected the shapes and the dtype of the results");
}

// Convolves the gradients of the results with the transposed weight, each term brought back the
// way that its input came.
Tensors input_gradients(const MultiscaleArguments& given, const std::vector<ConvInput>& gradients,
                        bool cross_scale, bool bilinear_down) {
  const int64_t area = given.kernel * given.kernel, row = given.out.columns * area;
  std::vector<float> transposed(given.in.columns * row);
  transpose(given.weight, given.out.columns, given.in.columns, area, transposed.data(), row);
  const std::size_t count = given.in.count();
  std::vector<std::vector<ConvTerm>> terms(count);
  std::vector<ConvGroup> groups(count);
  std::vector<ConvOutput> outputs;
  Tensors results;
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t j = 0; j < given.out.count(); ++j) {
      const int64_t steps = given.steps_down(i, j);
      if (steps != 0 && !cross_scale) continue;
      const Resample resample = steps == 0      ? Resample::none
                                : steps < 0     ? Resample::bilinear_up_adjoint
                                : bilinear_down ? Resample::bilinear_down_adjoint
                                                : Resample::max_pool_adjoint;
      terms[i].push_back(
          {&gradients[j], resample, static_cast<int>(std::abs(steps)), given.out.column[j], 1});
    }
    const Tensor& x = given.xs[i];
    groups[i] = {transposed.data() + given.in.column[i] * row, given.in.channels[i], 1};
    results.push_back(empty_output(x, x.size(1), x.size(2), x.size(3)));
    ConvOutput output = output_of(results[i], given.input_size(i), terms[i], groups[i]);
    output.routed = &given.inputs[i];
    if (given.entry_pool) {
      output.spread_height = x.size(2);
      output.spread_width = x.size(3);
    }
    outputs.push_back(output);
  }
  run_problem({outputs.data(), static_cast<int64_t>(count), given.xs[0].size(0), given.out.columns,
               static_cast<int>(given.kernel), dtype_of(given.op, given.xs[0]),
               static_cast<int64_t>(torch::stable::get_num_threads())});
  return results;
}

Tensor weight_gradient(const MultiscaleArguments& given, const std::vector<ConvInput>& gradients,
                       bool cross_scale, bool bilinear_down) {
  const int64_t area = given.kernel * given.kernel, row = given.in.columns * area;
  Tensor result = zeros({given.out.columns, given.in.columns, given.kernel, given.kernel});
  float* const to = static_cast<float*>(result.mutable_data_ptr());
  std::vector<WeightBlock> blocks;
  for (std::size_t j = 0; j < given.out.count(); ++j) {
    for (std::size_t i = 0; i < given.in.count(); ++i) {
      const int64_t steps = given.steps_down(i, j);
      if (steps != 0 && !cross_scale) continue;
      const Size size = steps < 0 ? given.input_size(i) : given.output_size(j);
      const Resample back = steps < 0 ? Resample::bilinear_up_adjoint : Resample::none;
      const Resample down = steps <= 0      ? Resample::none
                            : bilinear_down ? Resample::bilinear_down
                                            : Resample::max_pool;
      const int scales = static_cast<int>(std::abs(steps));
      blocks.push_back({{&gradients[j], back, scales, 0, 1},
                        {&given.inputs[i], down, scales, 0, 1},
                        size.height,
                        size.width,
                        to + given.out.column[j] * row + given.in.column[i] * area,
                        row});
    }
  }
  sum_products({blocks.data(), static_cast<int64_t>(blocks.size()), given.xs[0].size(0),
                static_cast<int>(given.kernel), dtype_of(given.op, given.xs[0])});
  return result;
}

FiveKinds goctconv2d_backward(const Tensors& grads, const Tensors& xs, const Tensor& weight,
                              const Tensors& scale, const Tensors& shift, const Tensors& slope,
                              const Counts& in_channels, const Counts& out_channels,
                              bool entry_pool, bool cross_scale, bool bilinear_down,
                              const std::vector<bool>& flags) {
  const MultiscaleArguments given("goctconv2d_backward_cpp", xs, weight, in_channels, out_channels,
                                  entry_pool);
  if (cross_scale && !bilinear_down) given.check_halves();
  STD_TORCH_CHECK(grads.size() == given.out.count(), given.op,
                  ": grads: expected one per output branch with channels");
  for (std::size_t j = 0; j < grads.size(); ++j) {
    check_gradient(given.op, grads[j], xs[0], given.out.channels[j], given.output_size(j));
  }
  const Wanted wanted(given.op, flags);
  const auto convolve = [&](const Tensors& wide, const Tensor& w) {
    return goctconv2d(wide, w, {}, {}, {}, in_channels, out_channels, entry_pool, cross_scale,
                      bilinear_down);
  };
  const EpilogueGradients found =
      epilogue_backward(given.op, grads, xs, weight, scale, shift, slope, wanted, convolve);
  std::vector<ConvInput> gradients;
  for (const Tensor& dz : found.sums) gradients.push_back(input_of(dz));
  Tensors of_xs, of_weight;
  if (wanted.xs) of_xs = input_gradients(given, gradients, cross_scale, bilinear_down);
  if (wanted.weights) {
    const Tensor gradient = weight_gradient(given, gradients, cross_scale, bilinear_down);
    of_weight.push_back(with_dtype_of(weight, gradient));
  }
  return {of_xs, of_weight, found.scale, found.shift, found.slope};
}

// One scale of dilated_bank: its weights by dilation, and the gradients of their channels.
struct Bank {
  std::vector<Tensor> weights;
  std::vector<int64_t> dilations;
  std::vector<ConvInput> gradients;
  int64_t channels = 0;

  void set_gradients(const Tensor& of_sums) {
    int64_t first = 0;
    for (const Tensor& weight : weights) {
      gradients.push_back(channels_of(of_sums, first, weight.size(0)));
      first += weight.size(0);
    }
  }
};

Tensor zeros_like(const Tensor& x) {
  Tensor zero = empty_output(x, x.size(1), x.size(2), x.size(3));
  std::fill_n(static_cast<char*>(zero.mutable_data_ptr()), zero.numel() * x.element_size(), 0);
  return zero;
}

Tensor input_gradient(const char* op, const Bank& bank, const Tensor& x) {
  const int64_t row = bank.channels * 9;
  std::vector<float> transposed(x.size(1) * row);
  std::vector<ConvTerm> terms;
  Tensors keep;
  int64_t first = 0;
  for (std::size_t d = 0; d < bank.weights.size(); ++d) {
    const int64_t out = bank.gradients[d].channels;
    const float* weight = parameter(op, bank.weights[d], {out, x.size(1), 3, 3}, x, keep);
    transpose(weight, out, x.size(1), 9, transposed.data() + first * 9, row);
    terms.push_back({&bank.gradients[d], Resample::none, 0, first, bank.dilations[d]});
    first += out;
  }
  const Tensor result = empty_output(x, x.size(1), x.size(2), x.size(3));
  const ConvGroup group{transposed.data(), x.size(1), 1};
  const ConvOutput output = output_of(result, {x.size(2), x.size(3)}, terms, group);
  run_problem({&output, 1, x.size(0), bank.channels, 3, dtype_of(op, x),
               static_cast<int64_t>(torch::stable::get_num_threads())});
  return result;
}

void add_weight_gradients(const char* op, const Bank& bank, const Tensor& x, Tensors& results) {
  const ConvInput input = input_of(x);
  std::vector<WeightBlock> blocks;
  Tensors gradients;
  for (std::size_t d = 0; d < bank.weights.size(); ++d) {
    gradients.push_back(zeros({bank.gradients[d].channels, x.size(1), 3, 3}));
    blocks.push_back({{&bank.gradients[d], Resample::none, 0, 0, 1},
                      {&input, Resample::none, 0, 0, bank.dilations[d]},
                      input.height,
                      input.width,
                      static_cast<float*>(gradients[d].mutable_data_ptr()),
                      x.size(1) * 9});
  }
  sum_products({blocks.data(), static_cast<int64_t>(blocks.size()), x.size(0), 3, dtype_of(op, x)});
  for (std::size_t d = 0; d < bank.weights.size(); ++d) {
    results.push_back(with_dtype_of(bank.weights[d], gradients[d]));
  }
}

FiveKinds dilated_bank_backward(const Tensors& grads, const Tensors& xs, const Tensors& weights,
                                const Tensors& scale, const Tensors& shift, const Tensors& slope,
                                const Counts& dilations, const Counts& counts,
                                const std::vector<bool>& flags) {
  constexpr const char* op = "dilated_bank_backward_cpp";
  STD_TORCH_CHECK(!xs.empty() && counts.size() == xs.size() && dilations.size() == weights.size(),
                  op, ": expected one count per branch and one dilation per weight");
  std::vector<Bank> banks;
  std::size_t next = 0, with_channels = 0;
  for (std::size_t b = 0; b < xs.size(); ++b) {
    const Tensor& x = xs[b];
    STD_TORCH_CHECK(x.is_cpu() && x.dim() == 4 && x.scalar_type() == xs[0].scalar_type() &&
                        counts[b] >= 0 && next + counts[b] <= weights.size() &&
                        (counts[b] == 0 || with_channels < grads.size()),
                    op, ": expected 4-D CPU tensors of one dtype, and a weight for each count");
    Bank& bank = banks.emplace_back();
    for (int64_t d = 0; d < counts[b]; ++d, ++next) {
      STD_TORCH_CHECK(dilations[next] > 0 && weights[next].dim() == 4, op,
                      ": expected positive dilations and weights [out, in, 3, 3]");
      bank.weights.push_back(weights[next]);
      bank.dilations.push_back(dilations[next]);
      bank.channels += weights[next].size(0);
    }
    if (counts[b] == 0) continue;
    check_gradient(op, grads[with_channels++], x, bank.channels, {x.size(2), x.size(3)});
  }
  const Wanted wanted(op, flags);
  const auto convolve = [&](const Tensors& wide, const Tensors& ws) {
    return dilated_bank(wide, ws, {}, {}, {}, dilations, counts);
  };
  const EpilogueGradients found =
      epilogue_backward(op, grads, xs, weights, scale, shift, slope, wanted, convolve);
  Tensors of_xs, of_weights;
  std::size_t j = 0;
  for (std::size_t b = 0; b < xs.size(); ++b) {
    Bank& bank = banks[b];
    if (bank.weights.empty()) {
      if (wanted.xs) of_xs.push_back(zeros_like(xs[b]));
      continue;
    }
    bank.set_gradients(found.sums[j++]);
    if (wanted.xs) of_xs.push_back(input_gradient(op, bank, xs[b]));
    if (wanted.weights) add_weight_gradients(op, bank, xs[b], of_weights);
  }
  return {of_xs, of_weights, found.scale, found.shift, found.slope};
}

}  // namespace
}  // namespace lmwp

STABLE_TORCH_LIBRARY_IMPL(lmwp_ops, CPU, m) {
  m.impl("goctconv2d_backward_cpp", TORCH_BOX(&lmwp::goctconv2d_backward));
  m.impl("dilated_bank_backward_cpp", TORCH_BOX(&lmwp::dilated_bank_backward));
}
