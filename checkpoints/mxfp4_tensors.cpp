#include "checkpoints/mxfp4_tensors.h"

#include <fmt/ranges.h>

#include "kernels/common/error.h"
#include "kernels/quantized/block_layouts.h"

namespace graft {
namespace {

constexpr std::string_view kBlocks = "_blocks", kScales = "_scales";

class JoinedTensors : public TensorSource {
 public:
  explicit JoinedTensors(std::shared_ptr<const TensorSource> source) : source_(std::move(source)) {
    files_ = source_->files();
    for (const auto& tensor : source_->tensors()) {
      const auto name = std::string_view(tensor.name);
      if (name.ends_with(kScales) && source_->find(std::string(name.substr(0, name.size() - kScales.size())) + std::string(kBlocks))) continue;
      tensors_.push_back(name.ends_with(kBlocks) ? joined(tensor) : tensor);
    }
    index_tensors();
  }
  void forget(std::span<const std::byte> bytes) const override { source_->forget(bytes); }

 private:
  StoredTensor joined(const StoredTensor& blocks) {
    const auto name = blocks.name.substr(0, blocks.name.size() - kBlocks.size());
    const auto* scales = source_->find(name + std::string(kScales));
    auto expected = blocks.shape;
    const bool is_blocks = expected.size() == 4 && expected.back() == 16 && blocks.type == TensorType::kU8;
    if (is_blocks) expected.pop_back();
    if (!is_blocks || !scales || scales->type != TensorType::kU8 || scales->shape != expected) {
      fail("checkpoints", "expected {0}_blocks [E, R, C/32, 16] and {0}_scales [E, R, C/32] of bytes, got [{1}] and [{2}] ({3}) — the file is damaged", name,
           fmt::join(blocks.shape, ", "), scales ? fmt::format("{}", fmt::join(scales->shape, ", ")) : "none", blocks.file.string());
    }
    const int64_t experts = expected[0], rows = expected[1], row_blocks = expected[2];
    const bool in_turn = name.ends_with("gate_up_proj") && rows % 2 == 0;
    auto& memory = memory_.emplace_back(static_cast<size_t>(experts * rows * row_blocks));
    const auto* nibbles = reinterpret_cast<const uint8_t*>(blocks.bytes.data());
    const auto* exponents = reinterpret_cast<const uint8_t*>(scales->bytes.data());
    for (int64_t expert = 0; expert < experts; ++expert) {
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t target = in_turn ? row % 2 * (rows / 2) + row / 2 : row;
        for (int64_t b = 0; b < row_blocks; ++b) {
          const int64_t from = (expert * rows + row) * row_blocks + b;
          auto& block = memory[static_cast<size_t>((expert * rows + target) * row_blocks + b)];
          block.exponent = exponents[from];
          const auto element = [&](int i) { return nibbles[from * 16 + i / 2] >> i % 2 * 4 & 15; };   // neighbours share a byte there
          for (int j = 0; j < 16; ++j) block.nibbles[j] = static_cast<uint8_t>(element(j) | element(j + 16) << 4);
        }
      }
      source_->forget(blocks.bytes.first(static_cast<size_t>((expert + 1) * rows * row_blocks * 16)));   // one copy in memory, not two
    }
    source_->forget(scales->bytes);
    return {name + std::string(kMxfp4Ending), TensorType::kMXFP4, {experts, rows, row_blocks * BlockMXFP4::kElements}, std::as_bytes(std::span<const BlockMXFP4>(memory)), blocks.file};
  }

  std::shared_ptr<const TensorSource> source_;
  std::vector<std::vector<BlockMXFP4>> memory_;   // vectors move, what they hold stays where it is
};

}  // namespace

std::unique_ptr<TensorSource> join_mxfp4(std::shared_ptr<const TensorSource> source) { return std::make_unique<JoinedTensors>(std::move(source)); }

}  // namespace graft
