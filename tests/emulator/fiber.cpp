#include "tests/emulator/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define GRAFT_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GRAFT_ADDRESS_SANITIZER 1
#endif
#endif
#ifdef GRAFT_ADDRESS_SANITIZER
#include <pthread.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Saves what a call must preserve (System V ABI for x86-64, section 3.2.1) on the old stack, and takes it from the new one.
extern "C" void graft_switch_stacks(void** save, void* load);
__asm__(R"(
.text
.globl graft_switch_stacks
.type graft_switch_stacks, @function
graft_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size graft_switch_stacks, .-graft_switch_stacks

.globl graft_enter_stack
.type graft_enter_stack, @function
graft_enter_stack:
  .cfi_startproc
  .cfi_undefined rip
  movq %r13, %rdi
  callq *%r12
  ud2
  .cfi_endproc
.size graft_enter_stack, .-graft_enter_stack
)");
extern "C" void graft_enter_stack();

namespace graft::emulator {
namespace {

constexpr size_t kPage = 4096;
#ifdef GRAFT_ADDRESS_SANITIZER
constexpr size_t kStackBytes = 256 << 10;   // its red zones and spilled registers
#else
constexpr size_t kStackBytes = 64 << 10;
#endif

}  // namespace

Fiber::Fiber() {
#ifdef GRAFT_ADDRESS_SANITIZER
  pthread_attr_t attributes;
  void* bottom = nullptr;
  if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
    pthread_attr_getstack(&attributes, &bottom, &bytes_);
    pthread_attr_destroy(&attributes);
  }
  bottom_ = bottom;
#endif
}

Fiber::~Fiber() {
  if (memory_) munmap(memory_, kStackBytes + kPage);
}

std::unique_ptr<Fiber> Fiber::with_stack() {
  auto fiber = std::make_unique<Fiber>();
  void* memory = mmap(nullptr, kStackBytes + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kPage, PROT_NONE);
  fiber->memory_ = static_cast<unsigned char*>(memory);
  fiber->bottom_ = fiber->memory_ + kPage;
  fiber->bytes_ = kStackBytes;
  return fiber;
}

void Fiber::start(Entry entry, void* argument) {
#ifdef GRAFT_ADDRESS_SANITIZER
  __asan_unpoison_memory_region(bottom_, bytes_);
  fake_stack_ = nullptr;
#endif
  auto** top = reinterpret_cast<void**>(memory_ + kPage + kStackBytes) - 3;   // the entered function's frame is then aligned to 16 bytes
  *top = reinterpret_cast<void*>(graft_enter_stack);
  auto** registers = top - 6;   // r15, r14, r13, r12, rbx, rbp
  registers[0] = registers[1] = registers[4] = registers[5] = nullptr;
  registers[2] = argument;
  registers[3] = reinterpret_cast<void*>(entry);
  stack_pointer_ = registers;
}

void Fiber::switch_to(Fiber& next) {
#ifdef GRAFT_ADDRESS_SANITIZER
  __sanitizer_start_switch_fiber(&fake_stack_, next.bottom_, next.bytes_);
#endif
  graft_switch_stacks(&stack_pointer_, next.stack_pointer_);
  arrived(*this);
}

void Fiber::leave_to(Fiber& next) {
#ifdef GRAFT_ADDRESS_SANITIZER
  __sanitizer_start_switch_fiber(nullptr, next.bottom_, next.bytes_);
#endif
  graft_switch_stacks(&stack_pointer_, next.stack_pointer_);
  std::abort();
}

void Fiber::arrived([[maybe_unused]] Fiber& self) {
#ifdef GRAFT_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(self.fake_stack_, nullptr, nullptr);
#endif
}

}  // namespace graft::emulator
