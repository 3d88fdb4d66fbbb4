// Denormals cost a hundred cycles each and mean nothing in a feature map.
#pragma once

#include <stdint.h>

namespace lmwp::LMWP_ISA {

// Flushes denormals to zero in this thread for as long as it lives.
class FlushDenormals {
 public:
  FlushDenormals() : saved_(read()) { write(saved_ | kFlush); }
  ~FlushDenormals() { write(saved_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
#if defined(__SSE__)
  typedef uint32_t Word;
  static constexpr Word kFlush = 0x8040;  // FTZ and DAZ of MXCSR
  static inline Word read() { return __builtin_ia32_stmxcsr(); }
  static inline void write(Word word) { __builtin_ia32_ldmxcsr(word); }
#elif defined(__aarch64__)
  typedef uint64_t Word;
  static constexpr Word kFlush = 1u << 24;  // FZ of FPCR
  static inline Word read() {
    Word word;
    __asm__ volatile("mrs %0, fpcr" : "=r"(word));
    return word;
  }
  static inline void write(Word word) { __asm__ volatile("msr fpcr, %0" : : "r"(word)); }
#else
  typedef uint32_t Word;
  static constexpr Word kFlush = 0;
  static inline Word read() { return 0; }
  static inline void write(Word) {}
#endif

  const Word saved_;
};

}  // namespace lmwp::LMWP_ISA
