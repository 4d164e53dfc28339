// Rotary embedding in plain ATen, on any device: of the attention's reference, and of queries and keys outside of that operator.
#pragma once
#include <cstdint>
#include <span>

#include <ATen/core/Tensor.h>

namespace graft {

// Rows of a table [positions, E], one for each token, as `like` is: its device and type.
at::Tensor rows_at(const at::Tensor& table, std::span<const int32_t> positions, const at::Tensor& like);

// Turns the first 2E elements of each head: pairs are (2i, 2i + 1), or (i, i + E).
at::Tensor rotated(const at::Tensor& x_NHD, const at::Tensor& cosine_NE, const at::Tensor& sine_NE, bool neighbouring_pairs);

}  // namespace graft
