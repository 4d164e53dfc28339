// Stacks that take turns on one thread of the machine: a switch costs a few tens of nanoseconds. x86-64, announced to AddressSanitizer.
#pragma once
#include <cstddef>
#include <memory>

namespace graft::emulator {

class Fiber {
 public:
  using Entry = void (*)(void* argument);

  Fiber();   // of the thread itself: it has a stack already
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // A stack of its own, with an unmapped page below it. `entry` must not return: it ends by leave_to.
  static std::unique_ptr<Fiber> with_stack();
  // From the next switch on, entry(argument) runs on the stack from its top; what was on it is forgotten (no destructors run).
  void start(Entry entry, void* argument);

  // Runs `next` until something switches back to this one.
  void switch_to(Fiber& next);
  // The same, for the last time: what stands on this stack is not needed again.
  [[noreturn]] void leave_to(Fiber& next);
  // What `entry` does first.
  static void arrived(Fiber& self);

 private:
  void* stack_pointer_ = nullptr;
  unsigned char* memory_ = nullptr;
  const void* bottom_ = nullptr;
  size_t bytes_ = 0;
  void* fake_stack_ = nullptr;   // AddressSanitizer's
};

}  // namespace graft::emulator
