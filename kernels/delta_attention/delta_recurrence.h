// One value head's recurrence of the gated delta rule (delta_attention.h), float32, forward and backward. Each column of the state S [D, V] goes its own way, so that
// blocks of columns stay in the first-level cache from the first token to the last.
#pragma once
#include <cstdint>

namespace graft::delta_recurrence {

constexpr int64_t kColumns = 32;   // of the state, worked on together
constexpr int64_t kChunk = 16;     // tokens from one kept state to the next

struct Head {
  int64_t tokens = 0, key_size = 0, value_size = 0;
  const float* queries = nullptr;  // [T, D], normalised and scaled
  const float* keys = nullptr;     // [T, D], normalised
  const float* values = nullptr;   // [T, V]
  const float* betas = nullptr;    // [T]
  const float* decays = nullptr;   // [T], or [T, D] with channel_decay
  bool channel_decay = false;

  int64_t blocks() const { return (value_size + kColumns - 1) / kColumns; }
  int64_t kept_floats() const { return blocks() * ((tokens + kChunk - 1) / kChunk) * key_size * kColumns; }   // of all kept states
  int64_t block_floats() const { return key_size * kColumns; }
};

// output [T, V]. state [D, V] is read and written; null: zeros before the first token. kept: kept_floats() for the backward pass, or null. block: scratch of
// block_floats(), 64-byte aligned, as kept.
void forward(const Head& head, float* state, float* output, float* kept, float* block);

struct Gradients {                 // added to
  float* queries = nullptr;        // [T, D]
  float* keys = nullptr;
  float* values = nullptr;         // [T, V]
  float* betas = nullptr;          // [T]
  float* log_decays = nullptr;     // as decays
};

// doutput [T, V]; scratch of (kChunk + 2) * block_floats(), 64-byte aligned.
void backward(const Head& head, const float* kept, const float* doutput, const Gradients& gradients, float* scratch);

}  // namespace graft::delta_recurrence
