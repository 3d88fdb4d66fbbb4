// What the torch ops of sparse_conv2d share: their arguments as problems of the kernels.
#pragma once

#include <algorithm>
#include <functional>
#include <numeric>
#include <string>

#include "cpu/sparse_matrix.h"
#include "cpu/torch_arguments.h"

namespace lmwp {

using Counts = std::vector<int64_t>;

inline constexpr const char* kSparseOp = "sparse_conv2d";
constexpr int64_t kInPlaceReads = 16;        // of a pixel; copied for more, it is found faster
constexpr int64_t kGrainProducts = 1 << 16;  // products that are worth a thread

// A list of indices as int32, which lives in `keep`.
inline const int32_t* indices_of(const torch::stable::Tensor& given, int64_t count, Tensors& keep) {
  STD_TORCH_CHECK(given.is_cpu() && given.dim() == 1 && given.size(0) == count &&
                      given.scalar_type() == torch::headeronly::ScalarType::Int,
                  kSparseOp, ": indices: expected 1-D int32 CPU tensors of the right lengths");
  keep.push_back(given.is_contiguous() ? given : torch::stable::contiguous(given));
  return static_cast<const int32_t*>(keep.back().const_data_ptr());
}

// The packed weight as rows of a matrix, whose columns are numbered as in SparsePlan.
class SparseWeight {
 public:
  SparseWeight(const torch::stable::Tensor& x, const torch::stable::Tensor& values,
               const Tensors& indices, const std::string& format, const Counts& shape,
               const Counts& block, int64_t groups) {
    STD_TORCH_CHECK(indices.size() == 2 && indices[0].dim() == 1 && indices[1].dim() == 1,
                    kSparseOp, ": indices: expected two 1-D tensors");
    outputs_.resize(shape[0]);
    std::iota(outputs_.begin(), outputs_.end(), 0);
    if (format == "channels") {
      take_channels(x, values, indices, shape, groups);
    } else {
      take_blocks(x, values, indices, shape, block, groups, format == "unstructured");
    }
  }

  const SparseMatrix& matrix() const { return matrix_; }

  // The packed values; the weights of the matrix lie among them.
  const float* values() const { return values_; }

  // Input channels that are kept for the same outputs.
  int64_t shared_inputs() const { return shared_inputs_; }

 private:
  void take_blocks(const torch::stable::Tensor& x, const torch::stable::Tensor& values,
                   const Tensors& indices, const Counts& shape, const Counts& block, int64_t groups,
                   bool slabs) {
    STD_TORCH_CHECK(block.size() == 2 && block[0] > 0 && block[1] > 0, kSparseOp,
                    ": block: expected two positive ints");
    const int64_t rows = block[0], columns = block[1];
    const int64_t width = shape[1] * shape[2] * shape[3];
    STD_TORCH_CHECK(width % columns == 0 && (groups == 1 || shape[0] / groups % rows == 0),
                    kSparseOp, ": block: does not divide the weight");
    const int64_t block_rows = (shape[0] + rows - 1) / rows, blocks = indices[1].size(0);
    const int64_t slab_count = slabs ? (shape[1] + kSparseSlab - 1) / kSparseSlab : 1;
    const int32_t* const offset = indices_of(indices[0], slab_count * block_rows + 1, keep_);
    const int32_t* column = indices_of(indices[1], blocks, keep_);
    const float* const weight = parameter(kSparseOp, values, {blocks, columns, rows}, x, keep_);
    values_ = weight;
    if (shape[2] * shape[3] == 1) shared_inputs_ = columns;
    check_offsets(offset, slab_count * block_rows, blocks);
    check_range(column, blocks, width / columns);
    matrix_.channels.resize(shape[1]);
    std::iota(matrix_.channels.begin(), matrix_.channels.end(), 0);
    if (rows == 1 && columns == 1) {
      matrix_.singles = {offset, column, weight, shape[0], slab_count};
      return;
    }
    STD_TORCH_CHECK(slab_count == 1, kSparseOp, ": block: expected 1 x 1 in slabs");
    if (columns > 1) column = expand(column, blocks, columns);
    for (int64_t r = 0; r < block_rows; ++r) {
      const int64_t begin = offset[r], count = offset[r + 1] - begin, first = r * rows;
      matrix_.rows.push_back({&outputs_[first], std::min(rows, shape[0] - first), rows, 1,
                              weight + begin * columns * rows, column + begin * columns,
                              count * columns});
    }
    for (int64_t g = 0; g <= groups; ++g) matrix_.first_row.push_back(g * block_rows / groups);
  }

  const int32_t* expand(const int32_t* column, int64_t blocks, int64_t columns) {
    columns_.resize(blocks * columns);
    for (int64_t k = 0; k < blocks * columns; ++k) {
      columns_[k] = static_cast<int32_t>(column[k / columns] * columns + k % columns);
    }
    return columns_.data();
  }

  void take_channels(const torch::stable::Tensor& x, const torch::stable::Tensor& values,
                     const Tensors& indices, const Counts& shape, int64_t groups) {
    STD_TORCH_CHECK(groups == 1, kSparseOp, ": groups: expected 1 with kept channels");
    const int64_t out = indices[0].size(0), in = indices[1].size(0);
    const int64_t width = in * shape[2] * shape[3];
    const int32_t* const outputs = indices_of(indices[0], out, keep_);
    const int32_t* const inputs = indices_of(indices[1], in, keep_);
    check_range(outputs, out, shape[0]);
    check_range(inputs, in, shape[1]);
    check_rising(outputs, out);
    check_rising(inputs, in);
    const float* const weight =
        parameter(kSparseOp, values, {out, in, shape[2], shape[3]}, x, keep_);
    values_ = weight;
    shared_inputs_ = kSparseTile;
    matrix_.channels.assign(inputs, inputs + in);
    columns_.resize(width);
    std::iota(columns_.begin(), columns_.end(), 0);
    // Kept channels first, then those whose sums are empty.
    outputs_.assign(outputs, outputs + out);
    for (int32_t c = 0, next = 0; c < shape[0]; ++c) {
      if (next < out && outputs[next] == c) {
        ++next;
      } else {
        outputs_.push_back(c);
      }
    }
    for (int64_t o = 0; o < out; o += kSparseTile) {
      matrix_.rows.push_back({&outputs_[o], std::min(kSparseTile, out - o), 1, width,
                              weight + o * width, columns_.data(), width});
    }
    if (out < shape[0]) {
      const int64_t rest = shape[0] - out;
      matrix_.rows.push_back({outputs_.data() + out, rest, 0, 0, nullptr, nullptr, 0});
    }
    matrix_.first_row = {0, static_cast<int64_t>(matrix_.rows.size())};
  }

  static void check_offsets(const int32_t* offset, int64_t rows, int64_t blocks) {
    bool rises = offset[0] == 0 && offset[rows] == blocks;
    for (int64_t r = 0; r < rows; ++r) rises = rises && offset[r] <= offset[r + 1];
    STD_TORCH_CHECK(rises, kSparseOp, ": indices: expected offsets that rise from 0 to the blocks");
  }

  static void check_rising(const int32_t* index, int64_t count) {
    STD_TORCH_CHECK(
        std::adjacent_find(index, index + count, std::greater_equal<>()) == index + count,
        kSparseOp, ": indices: expected rising ones");
  }

  static void check_range(const int32_t* index, int64_t count, int64_t end) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < count; ++i) {
      largest = std::max(largest, static_cast<uint32_t>(index[i]));
    }
    STD_TORCH_CHECK(count == 0 || largest < end, kSparseOp, ": indices: expected ones below ", end);
  }

  Tensors keep_;
  std::vector<int32_t> outputs_, columns_;
  SparseMatrix matrix_{};
  const float* values_ = nullptr;
  int64_t shared_inputs_ = 1;
};

// What the output and the tasks follow from.
inline SparseGeometry geometry_of(const torch::stable::Tensor& x, const Counts& shape,
                                  const Counts& stride, const Counts& padding,
                                  const Counts& dilation, int64_t groups) {
  STD_TORCH_CHECK(x.is_cpu() && x.dim() == 4, kSparseOp, ": x: expected a 4-D CPU tensor");
  STD_TORCH_CHECK(shape.size() == 4 && stride.size() == 2 && padding.size() == 2 &&
                      dilation.size() == 2 && groups > 0,
                  kSparseOp, ": expected four sizes of the weight and two of each setting");
  STD_TORCH_CHECK(
      shape[0] > 0 && shape[0] % groups == 0 && shape[1] > 0 && x.size(1) == shape[1] * groups,
      kSparseOp, ": x: expected as many channels as the weight");
  SparseGeometry geometry{shape[0], shape[1], groups, {}, {}, {}, {}, {}, {}};
  for (int d = 0; d < 2; ++d) {
    STD_TORCH_CHECK(shape[2 + d] > 0 && stride[d] > 0 && padding[d] >= 0 && dilation[d] > 0,
                    kSparseOp, ": expected positive settings");
    const int64_t reach = dilation[d] * (shape[2 + d] - 1);
    const int64_t room = x.size(2 + d) + 2 * padding[d] - reach - 1;
    STD_TORCH_CHECK(x.size(2 + d) > 0 && room >= 0, kSparseOp, ": x: smaller than the kernel");
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
inline bool joins_rows(const SparseGeometry& geometry, const int64_t* x_stride,
                       const int64_t* y_stride) {
  bool joins = true;
  for (int d = 0; d < 2; ++d) {
    joins = joins && geometry.kernel[d] == 1 && geometry.step[d] == 1 && geometry.padding[d] == 0 &&
            geometry.size[d] == geometry.out_size[d];
  }
  return joins && x_stride[2] == geometry.size[1] * x_stride[3] &&
         y_stride[2] == geometry.size[1] * y_stride[3];
}

inline void join_rows(SparseGeometry& geometry) {
  geometry.size[1] = geometry.out_size[1] = geometry.size[0] * geometry.size[1];
  geometry.size[0] = geometry.out_size[0] = 1;
}

inline void set_sizes(const SparseGeometry& geometry, SparseConvProblem& problem) {
  problem.height = geometry.size[0];
  problem.width = geometry.size[1];
  problem.out_height = geometry.out_size[0];
  problem.out_width = geometry.out_size[1];
}

// Whether copying the pixels of maps that are one row each would not pay.
inline bool reads_in_place(const SparseGeometry& geometry, const SparseConvProblem& problem,
                           const SparseMatrix& matrix) {
  const int64_t width = geometry.size[1], channels = geometry.groups * geometry.group_channels;
  return geometry.size[0] == 1 && geometry.out_size[1] == width && geometry.kernel[1] == 1 &&
         geometry.step[1] == 1 && geometry.padding[0] == 0 && geometry.padding[1] == 0 &&
         problem.x_stride[3] == 1 && width % 16 == 0 && problem.dtype == Dtype::float32 &&
         channels * problem.x_stride[1] < (int64_t{1} << 31) &&
         matrix.reads() < kInPlaceReads * channels;
}

// Fills the rest of a problem that has its tensors, their strides and its epilogue, and runs it.
inline void convolve(SparseGeometry geometry, const SparseMatrix& matrix,
                     SparseConvProblem problem) {
  static const SparseConvKernel kernel = LMWP_BEST_KERNEL(sparse_conv2d_kernel);
  if (joins_rows(geometry, problem.x_stride, problem.y_stride)) join_rows(geometry);
  SparsePlan plan(geometry, matrix.channels);
  if (reads_in_place(geometry, problem, matrix)) plan.read_in_place(problem.x_stride[1]);
  matrix.describe(problem);
  set_sizes(geometry, problem);
  plan.describe(problem, static_cast<int64_t>(torch::stable::get_num_threads()));
  const int64_t tasks = kernel.task_count(problem);
  if (tasks == 0) return;
  const int64_t products =
      matrix.kept() * geometry.out_size[0] * geometry.out_size[1] * problem.batch;
  const int64_t grain = kGrainProducts * tasks / std::max<int64_t>(1, products) + 1;
  const int64_t floats = kernel.scratch_floats(problem);
  torch::stable::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    kernel.run(problem, begin, end, thread_scratch(floats));
  });
}

}  // namespace lmwp
