// Fibers: one stack per emulated CUDA thread, switched by hand on x86-64, by ucontext elsewhere.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>

#if !defined(__x86_64__) && !defined(HOST_CUDA_UCONTEXT)
#define HOST_CUDA_UCONTEXT
#endif
#if defined(HOST_CUDA_UCONTEXT)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
extern "C" void AnnotateIgnoreWritesBegin(const char* file, int line);
extern "C" void AnnotateIgnoreWritesEnd(const char* file, int line);
#endif

// The emulator's own bookkeeping must be invisible to the sanitizers that watch the kernel.
#define HOST_CUDA_RUNTIME \
  __attribute__((noinline, noipa, no_sanitize_address, no_sanitize_undefined, no_sanitize_thread))

namespace host_cuda {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr std::size_t kStackBytes = 256 << 10;
#else
inline constexpr std::size_t kStackBytes = 64 << 10;
#endif

struct Fiber {
  char* stack = nullptr;
  std::size_t stack_bytes = 0;
#if defined(HOST_CUDA_UCONTEXT)
  ucontext_t context;
#else
  void* top = nullptr;
#endif
  void* sanitizer = nullptr;  // ASan's fake stack or TSan's fiber
};

#if !defined(HOST_CUDA_UCONTEXT)
extern "C" void host_cuda_switch(void** save, void* load);
asm(R"(
  .text
  .p2align 4
  .type host_cuda_switch, @function
host_cuda_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
  .size host_cuda_switch, . - host_cuda_switch
)");
#endif

// Makes `fiber` start in `entry`, which must never return.
HOST_CUDA_RUNTIME inline void create_fiber(Fiber& fiber, void (*entry)()) {
  const std::size_t guard = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  void* memory = mmap(nullptr, kStackBytes + guard, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, guard, PROT_NONE) != 0) abort();
  fiber.stack = static_cast<char*>(memory) + guard;
  fiber.stack_bytes = kStackBytes;
#if defined(HOST_CUDA_UCONTEXT)
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = fiber.stack_bytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
#else
  void** top = reinterpret_cast<void**>(fiber.stack + fiber.stack_bytes) - 2;
  *top = reinterpret_cast<void*>(entry);  // what `ret` pops, above six saved registers
  fiber.top = top - 6;
#endif
#if defined(__SANITIZE_THREAD__)
  fiber.sanitizer = __tsan_create_fiber(0);
#endif
}

HOST_CUDA_RUNTIME inline void switch_fiber(Fiber& from, Fiber& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.sanitizer, to.stack, to.stack_bytes);
#elif defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(to.sanitizer, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(HOST_CUDA_UCONTEXT)
  swapcontext(&from.context, &to.context);
#else
  host_cuda_switch(&from.top, to.top);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.sanitizer, nullptr, nullptr);
#endif
}

// First call on a new fiber; tells ASan where the scheduling thread's stack lies.
HOST_CUDA_RUNTIME inline void enter_fiber([[maybe_unused]] Fiber& scheduler) {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = nullptr;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &scheduler.stack_bytes);
  scheduler.stack = static_cast<char*>(const_cast<void*>(bottom));
#endif
}

}  // namespace host_cuda
