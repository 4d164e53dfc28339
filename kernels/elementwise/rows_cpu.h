// Row kernels of the CPU path: each reads bfloat16 or float32 (Element), computes in float32. Vectorised by the compiler, one clone per
// instruction set. Pointers are to one row; sizes in elements.
#pragma once
#include <cstdint>

namespace graft::rows {

void to_float(const float* source, int64_t size, float* destination);
void to_float(const uint16_t* source, int64_t size, float* destination);      // bfloat16
void from_float(const float* source, int64_t size, float* destination);
void from_float(const float* source, int64_t size, uint16_t* destination);    // round to nearest even
void from_float_in_place(float* row, int64_t size);                           // bfloat16 into the first half of the row's own memory

// y = x * inverse_rms * weight, inverse_rms = 1/sqrt(mean(x^2) + epsilon), which is returned.
float rms_norm(const float* x, const float* weight, int64_t size, float epsilon, float* y);
// dx = inverse_rms * (g*w - x * inverse_rms^2 * mean(g*w*x)); weight is frozen: it has no gradient here.
void rms_norm_backward(const float* gradient, const float* x, const float* weight, int64_t size, float inverse_rms, float* dx);

// y = silu(gate) * up
void swiglu(const float* gate, const float* up, int64_t size, float* y);
void swiglu_backward(const float* gradient, const float* gate, const float* up, int64_t size, float* dgate, float* dup);

// y = gelu(gate) * up, gelu by its tanh form: x * sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)) (Hendrycks and Gimpel 2016, arXiv 1606.08415).
void gelu_tanh_gated(const float* gate, const float* up, int64_t size, float* y);
void gelu_tanh_gated_backward(const float* gradient, const float* gate, const float* up, int64_t size, float* dgate, float* dup);
// y = gelu(x), the same form.
void gelu_tanh(const float* x, int64_t size, float* y);
void gelu_tanh_backward(const float* gradient, const float* x, int64_t size, float* dx);

// Rotation of half-split pairs: (x0, x1) -> (x0 c - x1 s, x1 c + x0 s); cos and sin have size/2 entries. inverse turns the other way.
void rotate(float* x, const float* cosine, const float* sine, int64_t size, bool inverse);
// The same of neighbouring pairs (x[2i], x[2i + 1]).
void rotate_neighbours(float* x, const float* cosine, const float* sine, int64_t size, bool inverse);

float maximum(const float* x, int64_t size);
float dot(const float* x, const float* y, int64_t size);
float sum(const float* x, int64_t size);
void scale(float* x, int64_t size, float factor);
void add(float* x, const float* y, int64_t size);                              // x += y
void add_constant(float* x, int64_t size, float constant);                       // x[i] += constant
void add_ramp(float* x, int64_t size, float first, float step);                // x[i] += first + i * step
void soft_cap(float* x, int64_t size, float scale, float cap);                 // x = cap * tanh(scale * x / cap)
// dx = gradient * (1 - (y / cap)^2), written over the gradient: y is what soft_cap gave, its scale is not in it.
void soft_cap_backward(float* gradient, const float* y, int64_t size, float cap);
// x = exp(scale * x - offset); returns the sum.
float exp_and_sum(float* x, int64_t size, float scale, float offset);
// ds = p * (dp - delta) * scale, written over dp.
void softmax_backward(const float* p, float* dp, int64_t size, float delta, float scale);

}  // namespace graft::rows
