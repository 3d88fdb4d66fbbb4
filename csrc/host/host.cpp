// The Python module lmwp_ops._host: facts about the build and the processor, and the packer of
// pruned weights.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "common/cpu_capability.h"
#include "host/sparse_pack.h"

namespace {

namespace py = pybind11;

// Exactly this dtype: pybind11 would convert others.
using Mask = py::array_t<bool, py::array::c_style>;
using Indices = py::array_t<int32_t, py::array::c_style>;

Indices to_numpy(const std::vector<int32_t>& values) {
  return Indices(static_cast<py::ssize_t>(values.size()), values.data());
}

py::tuple pack_blocks(const Mask& mask, int64_t rows, int64_t columns, int64_t slab) {
  if (mask.ndim() != 2) throw py::value_error("the mask has to have two dimensions");
  const lmwp::BlockIndices found =
      lmwp::pack_blocks(mask.data(), mask.shape(0), mask.shape(1), rows, columns, slab);
  return py::make_tuple(to_numpy(found.offsets), to_numpy(found.columns));
}

void check_blocks(const Indices& offsets, const Indices& columns, int64_t block_rows,
                  int64_t block_columns, int64_t slab) {
  if (offsets.ndim() != 1 || columns.ndim() != 1) {
    throw py::value_error("offsets and columns have to have one dimension");
  }
  lmwp::check_blocks(offsets.data(), offsets.size(), columns.data(), columns.size(), block_rows,
                     block_columns, slab);
}

void check_rising(const Indices& indices, int64_t end) {
  if (indices.ndim() != 1) throw py::value_error("indices have to have one dimension");
  lmwp::check_rising(indices.data(), indices.size(), 0, end);
}

}  // namespace

PYBIND11_MODULE(_host, module) {
  module.doc() = "What only compiled code can tell of the build and the processor, or do fast.";
  module.def(
      "cpu_capability", [] { return lmwp::name(lmwp::cpu_capability()); },
      "Instruction set the CPU kernels run with: sse42, avx2, avx512 or generic.");
  module.def(
      "cpu_vendor", [] { return lmwp::cpu_vendor(); },
      "Who made the processor: intel, amd or another.");
  module.def("pack_blocks", &pack_blocks, py::arg("mask").noconvert(), py::arg("rows"),
             py::arg("columns"), py::arg("slab"),
             "(offsets, columns) of the kept blocks of a mask; ValueError if one is kept in part.");
  module.def("check_blocks", &check_blocks, py::arg("offsets").noconvert(),
             py::arg("columns").noconvert(), py::arg("block_rows"), py::arg("block_columns"),
             py::arg("slab"),
             "ValueError unless these are the indices of blocks of such a matrix.");
  module.def("check_rising", &check_rising, py::arg("indices").noconvert(), py::arg("end"),
             "ValueError unless the indices rise strictly from 0 or more to below end.");
  module.attr("compiler") = __VERSION__;
}
