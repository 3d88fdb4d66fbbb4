// Element types of the CPU kernels.
#pragma once

namespace lmwp {

enum class Dtype { float32, float16, bfloat16 };

}  // namespace lmwp
