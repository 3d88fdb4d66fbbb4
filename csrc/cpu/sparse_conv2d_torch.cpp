// The CPU kernel of sparse_conv2d as a torch op.
#include <numeric>
#include <string>

#include "cpu/sparse_plan.h"
#include "cpu/torch_arguments.h"

namespace lmwp {
namespace {

using torch::stable::Tensor;
using Counts = std::vector<int64_t>;

constexpr const char* kOp = "sparse_conv2d_cpp";
constexpr int64_t kSlab = 64;                // input channels, see lmwp_ops' layout.py
constexpr int64_t kTile = 8;                 // output channels that read a pixel together
constexpr int64_t kInPlaceReads = 16;        // of a pixel; copied for more, it is found faster
constexpr int64_t kGrainProducts = 1 << 16;  // products that are worth a thread

// A list of indices as int32, which lives in `keep`.
const int32_t* indices_of(const Tensor& given, int64_t count, Tensors& keep) {
  STD_TORCH_CHECK(given.is_cpu() && given.dim() == 1 && given.size(0) == count &&
                      given.scalar_type() == torch::headeronly::ScalarType::Int,
                  kOp, ": indices: expected 1-D int32 CPU tensors of the right lengths");
  keep.push_back(given.is_contiguous() ? given : torch::stable::contiguous(given));
  return static_cast<const int32_t*>(keep.back().const_data_ptr());
}

// The packed weight as rows of a matrix, whose columns are numbered as in SparsePlan.
class Weight {
 public:
  Weight(const Tensor& x, const Tensor& values, const Tensors& indices, const std::string& format,
         const Counts& shape, const Counts& block, int64_t groups) {
    STD_TORCH_CHECK(indices.size() == 2 && indices[0].dim() == 1 && indices[1].dim() == 1, kOp,
                    ": indices: expected two 1-D tensors");
    outputs_.resize(shape[0]);
    std::iota(outputs_.begin(), outputs_.end(), 0);
    if (format == "channels") {
      take_channels(x, values, indices, shape, groups);
    } else {
      take_blocks(x, values, indices, shape, block, groups, format == "unstructured");
    }
  }

  // The input channels of a group that are read.
  const std::vector<int32_t>& channels() const { return channels_; }

  // How often input channels are read, in all.
  int64_t reads() const {
    if (singles_.offset) return singles_.offset[singles_.slabs * singles_.channels];
    int64_t reads = 0;
    for (const SparseRows& row : rows_)
      reads += row.column_count * ((row.count + kTile - 1) / kTile);
    return reads;
  }

  void describe(SparseConvProblem& problem) const {
    problem.singles = singles_;
    problem.rows = rows_.data();
    problem.first_row = first_row_.data();
  }

 private:
  void take_blocks(const Tensor& x, const Tensor& values, const Tensors& indices,
                   const Counts& shape, const Counts& block, int64_t groups, bool slabs) {
    STD_TORCH_CHECK(block.size() == 2 && block[0] > 0 && block[1] > 0, kOp,
                    ": block: expected two positive ints");
    const int64_t rows = block[0], columns = block[1];
    const int64_t width = shape[1] * shape[2] * shape[3];
    STD_TORCH_CHECK(width % columns == 0 && (groups == 1 || shape[0] / groups % rows == 0), kOp,
                    ": block: does not divide the weight");
    const int64_t block_rows = (shape[0] + rows - 1) / rows, blocks = indices[1].size(0);
    const int64_t slab_count = slabs ? (shape[1] + kSlab - 1) / kSlab : 1;
    const int32_t* const offset = indices_of(indices[0], slab_count * block_rows + 1, keep_);
    const int32_t* column = indices_of(indices[1], blocks, keep_);
    const float* const weight = parameter(kOp, values, {blocks, columns, rows}, x, keep_);
    check_offsets(offset, slab_count * block_rows, blocks);
    check_range(column, blocks, width / columns);
    channels_.resize(shape[1]);
    std::iota(channels_.begin(), channels_.end(), 0);
    if (rows == 1 && columns == 1) {
      singles_ = {offset, column, weight, shape[0], slab_count};
      return;
    }
    STD_TORCH_CHECK(slab_count == 1, kOp, ": block: expected 1 x 1 in slabs");
    if (columns > 1) column = expand(column, blocks, columns);
    for (int64_t r = 0; r < block_rows; ++r) {
      const int64_t begin = offset[r], count = offset[r + 1] - begin, first = r * rows;
      rows_.push_back({&outputs_[first], std::min(rows, shape[0] - first), rows, 1,
                       weight + begin * columns * rows, column + begin * columns, count * columns});
    }
    for (int64_t g = 0; g <= groups; ++g) first_row_.push_back(g * block_rows / groups);
  }

  const int32_t* expand(const int32_t* column, int64_t blocks, int64_t columns) {
    columns_.resize(blocks * columns);
    for (int64_t k = 0; k < blocks * columns; ++k) {
      columns_[k] = static_cast<int32_t>(column[k / columns] * columns + k % columns);
    }
    return columns_.data();
  }

  void take_channels(const Tensor& x, const Tensor& values, const Tensors& indices,
                     const Counts& shape, int64_t groups) {
    STD_TORCH_CHECK(groups == 1, kOp, ": groups: expected 1 with kept channels");
    const int64_t out = indices[0].size(0), in = indices[1].size(0);
    const int64_t width = in * shape[2] * shape[3];
    const int32_t* const outputs = indices_of(indices[0], out, keep_);
    const int32_t* const inputs = indices_of(indices[1], in, keep_);
    check_range(outputs, out, shape[0]);
    check_range(inputs, in, shape[1]);
    const float* const weight = parameter(kOp, values, {out, in, shape[2], shape[3]}, x, keep_);
    channels_.assign(inputs, inputs + in);
    columns_.resize(width);
    std::iota(columns_.begin(), columns_.end(), 0);
    // Kept channels first, then those whose sums are empty.
    const auto pruned = std::stable_partition(
        outputs_.begin(), outputs_.end(),
        [&](int32_t channel) { return std::binary_search(outputs, outputs + out, channel); });
    STD_TORCH_CHECK(pruned - outputs_.begin() == out, kOp, ": indices: expected rising outputs");
    for (int64_t o = 0; o < out; o += kTile) {
      rows_.push_back({&outputs_[o], std::min(kTile, out - o), 1, width, weight + o * width,
                       columns_.data(), width});
    }
    if (out < shape[0]) {
      const int64_t rest = shape[0] - out;
      rows_.push_back({outputs_.data() + out, rest, 0, 0, nullptr, nullptr, 0});
    }
    first_row_ = {0, static_cast<int64_t>(rows_.size())};
  }

  static void check_offsets(const int32_t* offset, int64_t rows, int64_t blocks) {
    bool rises = offset[0] == 0 && offset[rows] == blocks;
    for (int64_t r = 0; r < rows; ++r) rises = rises && offset[r] <= offset[r + 1];
    STD_TORCH_CHECK(rises, kOp, ": indices: expected offsets that rise from 0 to the blocks");
  }

  static void check_range(const int32_t* index, int64_t count, int64_t end) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < count; ++i) {
      largest = std::max(largest, static_cast<uint32_t>(index[i]));
    }
    STD_TORCH_CHECK(count == 0 || largest < end, kOp, ": indices: expected ones below ", end);
  }

  Tensors keep_;
  std::vector<int32_t> channels_, outputs_, columns_;
  std::vector<SparseRows> rows_;
  std::vector<int64_t> first_row_;
  SparseSingles singles_{};
};

// What the output and the tasks follow from.
SparseGeometry geometry_of(const Tensor& x, const Counts& shape, const Counts& stride,
                           const Counts& padding, const Counts& dilation, int64_t groups) {
  STD_TORCH_CHECK(x.is_cpu() && x.dim() == 4, kOp, ": x: expected a 4-D CPU tensor");
  STD_TORCH_CHECK(shape.size() == 4 && stride.size() == 2 && padding.size() == 2 &&
                      dilation.size() == 2 && groups > 0,
                  kOp, ": expected four sizes of the weight and two of each setting");
  STD_TORCH_CHECK(
      shape[0] > 0 && shape[0] % groups == 0 && shape[1] > 0 && x.size(1) == shape[1] * groups, kOp,
      ": x: expected as many channels as the weight");
  SparseGeometry geometry{shape[0], shape[1], groups, {}, {}, {}, {}, {}, {}};
  for (int d = 0; d < 2; ++d) {
    STD_TORCH_CHECK(shape[2 + d] > 0 && stride[d] > 0 && padding[d] >= 0 && dilation[d] > 0, kOp,
                    ": expected positive settings");
    const int64_t reach = dilation[d] * (shape[2 + d] - 1);
    const int64_t room = x.size(2 + d) + 2 * padding[d] - reach - 1;
    STD_TORCH_CHECK(x.size(2 + d) > 0 && room >= 0, kOp, ": x: smaller than the kernel");
    geometry.kernel[d] = shape[2 + d];
    geometry.step[d] = stride[d];
    geometry.padding[d] = padding[d];
    geometry.dilation[d] = dilation[d];
    geometry.size[d] = x.size(2 + d);
    geometry.out_size[d] = room / stride[d] + 1;
  }
  return geometry;
}

// Whether maps can be walked as one row each.
bool joins_rows(const SparseGeometry& geometry, const Tensor& x, const Tensor& y) {
  bool joins = true;
  for (int d = 0; d < 2; ++d) {
    joins = joins && geometry.kernel[d] == 1 && geometry.step[d] == 1 && geometry.padding[d] == 0;
  }
  return joins && x.stride(2) == x.size(3) * x.stride(3) && y.stride(2) == y.size(3) * y.stride(3);
}

// Whether copying the pixels of maps that are one row each would not pay.
bool reads_in_place(const SparseGeometry& geometry, const Tensor& x, const Weight& weight) {
  const int64_t width = geometry.size[1];
  return geometry.size[0] == 1 && geometry.out_size[1] == width && geometry.kernel[1] == 1 &&
         geometry.step[1] == 1 && geometry.padding[0] == 0 && x.stride(3) == 1 && width % 16 == 0 &&
         x.scalar_type() == torch::headeronly::ScalarType::Float &&
         x.size(1) * x.stride(1) < (int64_t{1} << 31) &&
         weight.reads() < kInPlaceReads * geometry.groups * geometry.group_channels;
}

// Epilogue parameters with the bias inside the shift.
struct Epilogue {
  Epilogue(const Tensor& x, const Tensors& bias, const Tensors& scale, const Tensors& shift,
           const Tensors& slope, int64_t channels) {
    check_epilogue(kOp, scale, shift, slope, 1);
    STD_TORCH_CHECK(bias.size() <= 1, kOp, ": bias: expected at most one");
    const float* const b = parameter(kOp, bias, 0, {channels}, x, keep);
    this->scale = parameter(kOp, scale, 0, {channels}, x, keep);
    this->shift = parameter(kOp, shift, 0, {channels}, x, keep);
    this->slope = parameter(kOp, slope, 0, {channels}, x, keep);
    if (b == nullptr) return;
    shifted.resize(channels);
    for (int64_t c = 0; c < channels; ++c) {
      shifted[c] = this->scale ? this->scale[c] * b[c] + this->shift[c] : b[c];
    }
    this->shift = shifted.data();
  }

  const float *scale, *shift, *slope;
  Tensors keep;
  std::vector<float> shifted;
};

Tensor forward(const Tensor& x, const Tensor& values, const Tensors& indices, const Tensors& bias,
               const Tensors& scale, const Tensors& shift, const Tensors& slope,
               const std::string& format, const Counts& shape, const Counts& block,
               const Counts& stride, const Counts& padding, const Counts& dilation,
               int64_t groups) {
  static const SparseConvKernel kernel = LMWP_BEST_KERNEL(sparse_conv2d_kernel);
  SparseGeometry geometry = geometry_of(x, shape, stride, padding, dilation, groups);
  const Weight weight(x, values, indices, format, shape, block, groups);
  const Epilogue epilogue(x, bias, scale, shift, slope, shape[0]);
  Tensor y = empty_output(x, shape[0], geometry.out_size[0], geometry.out_size[1]);
  if (joins_rows(geometry, x, y)) {
    geometry.size[1] = geometry.out_size[1] = x.size(2) * x.size(3);
    geometry.size[0] = geometry.out_size[0] = 1;
  }
  SparsePlan plan(geometry, weight.channels());
  if (reads_in_place(geometry, x, weight)) plan.read_in_place(x.stride(1));
  SparseConvProblem problem{};
  weight.describe(problem);
  problem.dtype = dtype_of(kOp, x);
  problem.x = x.const_data_ptr();
  problem.y = y.mutable_data_ptr();
  problem.batch = x.size(0);
  problem.height = geometry.size[0];
  problem.width = geometry.size[1];
  problem.out_height = geometry.out_size[0];
  problem.out_width = geometry.out_size[1];
  for (int d = 0; d < 4; ++d) {
    problem.x_stride[d] = x.stride(d);
    problem.y_stride[d] = y.stride(d);
  }
  problem.scale = epilogue.scale;
  problem.shift = epilogue.shift;
  problem.slope = epilogue.slope;
  plan.describe(problem, static_cast<int64_t>(torch::stable::get_num_threads()));
  const int64_t tasks = kernel.task_count(problem);
  if (tasks == 0) return y;
  const int64_t products = values.numel() * geometry.out_size[0] * geometry.out_size[1];
  const int64_t grain = kGrainProducts * tasks / std::max<int64_t>(1, products * x.size(0)) + 1;
  const int64_t floats = kernel.scratch_floats(problem);
  torch::stable::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    kernel.run(problem, begin, end, thread_scratch(floats));
  });
  return y;
}

}  // namespace
}  // namespace lmwp

STABLE_TORCH_LIBRARY_IMPL(lmwp_ops, CPU, m) {
  m.impl("sparse_conv2d_cpp", TORCH_BOX(&lmwp::forward));
}
