// The Python module lmwp_ops._host: what the compiled code knows of its build and its processor.
#include <pybind11/pybind11.h>

#include "common/cpu_capability.h"

PYBIND11_MODULE(_host, module) {
  module.doc() = "Facts about the build and the processor that only compiled code can tell.";
  module.def(
      "cpu_capability", [] { return lmwp::name(lmwp::cpu_capability()); },
      "Instruction set the CPU kernels run with: sse42, avx2, avx512 or generic.");
  module.attr("compiler") = __VERSION__;
}
