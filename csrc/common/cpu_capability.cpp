#include "common/cpu_capability.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace lmwp {
namespace {

#if defined(__x86_64__)

CpuCapability detect() {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512) return CpuCapability::avx512;
  return avx2 ? CpuCapability::avx2 : CpuCapability::sse42;
}

CpuCapability limit() {
  const char* wanted = std::getenv("LMWP_OPS_CPU_CAPABILITY");
  if (wanted == nullptr || *wanted == '\0') return CpuCapability::avx512;
  for (auto known : {CpuCapability::sse42, CpuCapability::avx2, CpuCapability::avx512}) {
    if (std::string(wanted) == name(known)) return known;
  }
  throw std::runtime_error(
      std::string("LMWP_OPS_CPU_CAPABILITY: expected sse42, avx2 or avx512, got ") + wanted);
}

#else

CpuCapability detect() { return CpuCapability::generic; }
CpuCapability limit() { return CpuCapability::generic; }

#endif

}  // namespace

CpuCapability cpu_capability() {
  static const CpuCapability chosen = std::min(detect(), limit());
  return chosen;
}

const char* cpu_vendor() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_is("intel")) return "intel";
  if (__builtin_cpu_is("amd")) return "amd";
#endif
  return "another";
}

const char* name(CpuCapability capability) {
  switch (capability) {
    case CpuCapability::sse42:
      return "sse42";
    case CpuCapability::avx2:
      return "avx2";
    case CpuCapability::avx512:
      return "avx512";
    default:
      return "generic";
  }
}

}  // namespace lmwp
