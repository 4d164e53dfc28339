// The learning rate that `optimizer.learning_rate: auto` stands for.
#pragma once
#include <cstdint>
#include <string>

namespace graft {

// 5e-5 * 10 * (2000 / hidden_size)^e, with e = 0.781 for llama, 0.0775 for qwen2 and qwen3 ("LoRA Without Regret", Schulman 2025, and the
// Tinker cookbook's calibration: LoRA's best rate is ten times full fine-tuning's, nearly independent of the rank).
// family: the DecoderSpec's name. Throws UserError for a family that nobody has calibrated: the recipe must then give a number.
double auto_learning_rate(const std::string& family, int64_t hidden_size);

}  // namespace graft
