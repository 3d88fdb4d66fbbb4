// The gradient of the kept values of a pruned weight: for each, the sum over pixels of the products
// of the results' gradient and what it reads.
//
// A task is a run of tiles of pixels, of one group. Both sides of a tile are brought into float32
// planes, that of the gradient with zeros where rows of the other have more columns. What a slab of
// the columns reads of a panel of pixels stays in the first level of the cache while all rows use
// it. See the op's README for the counts.
#include "cpu/denormals.h"
#include "cpu/sparse_conv2d.h"
#include "cpu/sparse_pixels.h"
#include "cpu/sparse_product.h"

namespace lmwp::LMWP_ISA {
namespace {

constexpr int64_t kRuns = 16;          // of tiles, at most: partial sums of each are kept
constexpr int64_t kPanel = 128;        // pixels of a panel, at least
constexpr int64_t kNearFloats = 8192;  // of a first-level cache
constexpr int64_t kSlabPlanes = 64;

int64_t runs(const SparseConvProblem& p) { return min(kRuns, p.batch * tile_count(p)); }

int64_t parts(const SparseConvProblem& p) { return ceil_div(p.groups, task_groups(p)); }

int64_t task_count(const SparseValuesProblem& problem) {
  return runs(problem.conv) * parts(problem.conv);
}

int64_t partial_floats(const SparseValuesProblem& problem) {
  return runs(problem.conv) * problem.value_count;
}

int64_t scratch_floats(const SparseValuesProblem& problem) {
  const SparseConvProblem& p = problem.conv;
  return task_groups(p) * (p.plane_count + p.group_outputs) * p.tiling.floats + kAlign;
}

// Runs tasks with elements of type T.
template <typename T>
class ValuesRunner {
 public:
  ValuesRunner(const SparseValuesProblem& problem, float* scratch)
      : problem_(problem), p_(problem.conv) {
    Arena arena(scratch);
    all_planes_ = arena.take(task_groups(p_) * p_.plane_count * p_.tiling.floats);
    all_gradients_ = arena.take(0);
  }

  // Adds to partial sums, which are those of the run.
  void run(int64_t task, float* partials) {
    const int64_t first = task % parts(p_) * task_groups(p_), run = task / parts(p_);
    const int64_t groups = min(task_groups(p_), p_.groups - first);
    const int64_t tiles = p_.batch * tile_count(p_);
    LaneTotals totals(partials + run * problem_.value_count);
    for (int64_t i = run * tiles / runs(p_); i < (run + 1) * tiles / runs(p_); ++i) {
      tile_ = tile_at(p_, i);
      vectors_ = tile_vectors(p_, tile_);
      load_planes(first, groups);
      load_gradients(first, groups);
      for (int64_t g = 0; g < groups; ++g) {
        planes_ = all_planes_ + g * p_.plane_count * p_.tiling.floats;
        gradients_ = all_gradients_ + g * p_.group_outputs * p_.tiling.floats;
        add_group(first + g, totals);
      }
    }
    totals.finish();
  }

 private:
  void load_planes(int64_t group, int64_t groups) const {
    const bool together = is_interleaved(p_.x_stride);
    if (together) InterleavedPlanes<T>(p_, tile_, group, groups, all_planes_).load();
    for (int64_t i = 0; i < groups * p_.plane_count; ++i) {
      float* const to = all_planes_ + i * p_.tiling.floats;
      if (!together) {
        const int64_t channel = (group + i / p_.plane_count) * p_.group_channels;
        load_plane<T>(p_, tile_, channel, p_.planes[i % p_.plane_count], to);
      }
      const int64_t end = (tile_.rows + p_.tiling.halo) * p_.tiling.pitch;
      clear_columns(to, end, end + kAlign);
    }
  }

  // Zeros follow the rows of each channel up to whole vectors.
  void load_gradients(int64_t group, int64_t groups) const {
    const int64_t first = group * p_.group_outputs, outputs = groups * p_.group_outputs;
    if (is_interleaved(p_.y_stride)) {
      const int64_t lanes = min(kLanes, outputs);
      for (int64_t c = 0; c < outputs; c += kLanes) {
        load_pixels(first, min(c, outputs - lanes), lanes);
      }
    } else if (p_.singles.offset) {
      for (int64_t o = 0; o < outputs; ++o) load_gradient(first + o, o);
    } else {
      load_kept(group, groups);
    }
  }

  // Channels that keep something.
  void load_kept(int64_t group, int64_t groups) const {
    for (int64_t r = p_.first_row[group]; r < p_.first_row[group + groups]; ++r) {
      const SparseRows& rows = p_.rows[r];
      if (rows.column_count == 0) continue;
      for (int64_t t = 0; t < rows.count; ++t) {
        load_gradient(rows.output[t], rows.output[t] - group * p_.group_outputs);
      }
    }
  }

  // A vector of channels, or fewer, from `plane` on of those whose first is `first`.
  void load_pixels(int64_t first, int64_t plane, int64_t channels) const {
    float* to[kLanes] = {};
    for (int64_t k = 0; k < channels; ++k) {
      to[k] = all_gradients_ + (plane + k) * p_.tiling.floats;
    }
    for (int64_t i = 0; i < tile_.rows; ++i) {
      pixels_to_planes(gradient(first + plane, i), p_.y_stride[3], tile_.columns, channels, to);
      for (int64_t k = 0; k < channels; ++k) {
        clear_columns(to[k], tile_.columns, p_.tiling.pitch);
        to[k] += p_.tiling.pitch;
      }
    }
    for (int64_t k = 0; k < channels; ++k) clear_behind(plane + k);
  }

  // The first pixel of a row of the tile.
  const T* gradient(int64_t channel, int64_t row) const {
    return static_cast<const T*>(problem_.dy) + tile_.image * p_.y_stride[0] +
           channel * p_.y_stride[1] + (tile_.row + row) * p_.y_stride[2] +
           tile_.column * p_.y_stride[3];
  }

  void load_gradient(int64_t channel, int64_t plane) const {
    float* to = all_gradients_ + plane * p_.tiling.floats;
    for (int64_t i = 0; i < tile_.rows; ++i, to += p_.tiling.pitch) {
      const T* const row = gradient(channel, i);
      read_row(row, p_.y_stride[3], tile_.columns, row + (tile_.columns - 1) * p_.y_stride[3] + 1,
               to);
      clear_columns(to, tile_.columns, p_.tiling.pitch);
    }
    clear_behind(plane);
  }

  void clear_behind(int64_t plane) const {
    const int64_t end = (tile_.rows - 1) * p_.tiling.pitch + tile_.columns;
    clear_columns(all_gradients_ + plane * p_.tiling.floats, end, align(end));
  }

  void add_group(int64_t group, LaneTotals& totals) const {
    const int64_t first = group * p_.group_outputs;
    if (p_.singles.offset) return add_singles(first, totals);
    for_each_panel(p_.plane_count, [&](int64_t pixel, int64_t vectors) {
      for (int64_t r = p_.first_row[group]; r < p_.first_row[group + 1]; ++r) {
        add_rows(p_.rows[r], first, pixel, vectors, totals);
      }
    });
  }

  // Calls function(pixel, vectors) for panels of the tile of which so many planes are near.
  template <typename Function>
  void for_each_panel(int64_t planes, Function&& function) const {
    const int64_t most = max(kPanel, kNearFloats / max(1, planes)) / kLanes;
    for_each_even_tile(vectors_, most,
                       [&](int64_t first, int64_t count) { function(first * kLanes, count); });
  }

  void add_singles(int64_t first, LaneTotals& totals) const {
    for_each_panel(min(p_.plane_count, kSlabPlanes), [&](int64_t pixel, int64_t vectors) {
      for (int64_t s = 0; s < p_.singles.slabs; ++s) {
        const int32_t* const offset = p_.singles.offset + s * p_.singles.channels + first;
        for (int64_t o = 0; o < p_.group_outputs; ++o) {
          const float* const gradient = gradients_ + o * p_.tiling.floats + pixel;
          for (int64_t k = offset[o], count; k < offset[o + 1]; k += count) {
            count = next_take(offset[o + 1] - k, product_columns(1));
            add_products(&gradient, 1, p_.singles.column + k, count, pixel, vectors, {k, 0, 1},
                         totals);
          }
        }
      }
    });
  }

  void add_rows(const SparseRows& rows, int64_t first, int64_t pixel, int64_t vectors,
                LaneTotals& totals) const {
    if (rows.column_count == 0) return;
    for (int64_t t = 0, count; t < rows.count; t += count) {
      count = next_take(rows.count - t, kProductRows);
      const float* gradients[kProductRows];
      for (int64_t i = 0; i < count; ++i) {
        gradients[i] = gradients_ + (rows.output[t + i] - first) * p_.tiling.floats + pixel;
      }
      int64_t at = rows.weight - problem_.values + t * rows.output_step;
      for (int64_t k = 0, columns; k < rows.column_count; k += columns) {
        columns = next_take(rows.column_count - k, product_columns(count));
        add_products(gradients, count, rows.column + k, columns, pixel, vectors,
                     {at, rows.output_step, rows.column_step}, totals);
        at += columns * rows.column_step;
      }
    }
  }

  // Where the sum of the first gradient and the first column goes, and how far the next ones are.
  struct Places {
    int64_t first, row, column;
  };

  void add_products(const float* const* gradients, int64_t count, const int32_t* column,
                    int64_t columns, int64_t pixel, int64_t vectors, const Places& places,
                    LaneTotals& totals) const {
    const float* from[product_columns(1)];
    for (int64_t i = 0; i < columns; ++i) from[i] = planes_ + p_.source.of[column[i]] + pixel;
    totals.make_room();
    plane_products_function(count, columns)(gradients, from, vectors, totals.room());
    for (int64_t i = 0; i < count; ++i) {
      totals.add(columns, places.first + i * places.row, places.column);
    }
  }

  const SparseValuesProblem& problem_;
  const SparseConvProblem& p_;
  float *all_planes_, *all_gradients_;
  float *planes_, *gradients_;  // of a group
  SparseTile tile_;
  int64_t vectors_;  // of the tile
};

template <typename T>
void run_as(const SparseValuesProblem& problem, int64_t begin, int64_t end, float* partials,
            float* scratch) {
  ValuesRunner<T> runner(problem, scratch);
  for (int64_t task = begin; task < end; ++task) runner.run(task, partials);
}

void run(const SparseValuesProblem& problem, int64_t begin, int64_t end, float* partials,
         float* scratch) {
  const FlushDenormals flush;
  switch (problem.conv.dtype) {
    case Dtype::float32:
      return run_as<float>(problem, begin, end, partials, scratch);
    case Dtype::float16:
      return run_as<Half>(problem, begin, end, partials, scratch);
    case Dtype::bfloat16:
      return run_as<BFloat16>(problem, begin, end, partials, scratch);
  }
}

}  // namespace

SparseValuesKernel sparse_values_kernel() {
  return {task_count, partial_floats, scratch_floats, run};
}

}  // namespace lmwp::LMWP_ISA
