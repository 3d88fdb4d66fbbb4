// Which of the compiled instruction sets this processor can run.
#pragma once

namespace lmwp {

enum class CpuCapability { generic, sse42, avx2, avx512 };

// The best set this processor has, lowered by LMWP_OPS_CPU_CAPABILITY=sse42|avx2|avx512.
// Decided on the first call; throws std::runtime_error where the variable names no set.
CpuCapability cpu_capability();

const char* name(CpuCapability capability);

// Who made the processor: "intel", "amd" or "another".
const char* cpu_vendor();

}  // namespace lmwp
