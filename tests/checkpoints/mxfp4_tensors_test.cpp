// Two tensors of bytes to one of blocks, against values worked out by hand.
#include "checkpoints/mxfp4_tensors.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "kernels/quantized/dequantize.h"

namespace graft {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class Bytes : public TensorSource {
 public:
  void add(const std::string& name, std::vector<int64_t> shape, const std::vector<uint8_t>& bytes, TensorType type = TensorType::kU8) {
    tensors_.push_back({name, type, std::move(shape), std::as_bytes(std::span(bytes)), "model.safetensors"});
  }
  void done() { index_tensors(); }
};

// The value of a code: sign, two bits of exponent, one of mantissa.
float value_of(int code) {
  const float sizes[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  return code < 8 ? sizes[code] : -sizes[code - 8];
}

TEST(Mxfp4Tensors, JoinsBlocksAndScalesAndPartsGateFromUp) {
  // One expert, four rows in turn (gate 0, up 0, gate 1, up 1) of one block; row r holds codes (r + i) % 16 and scale 2^(r - 1).
  std::vector<uint8_t> nibbles(64), exponents(4);
  for (int row = 0; row < 4; ++row) {
    exponents[row] = static_cast<uint8_t>(126 + row);
    for (int i = 0; i < 16; ++i) nibbles[row * 16 + i] = static_cast<uint8_t>((row + 2 * i) % 16 | (row + 2 * i + 1) % 16 << 4);
  }
  const std::vector<uint8_t> other(8);
  auto source = std::make_shared<Bytes>();
  source->add("a.gate_up_proj_blocks", {1, 4, 1, 16}, nibbles);
  source->add("a.gate_up_proj_scales", {1, 4, 1}, exponents);
  source->add("a.bias", {2}, other, TensorType::kF32);
  source->done();
  const auto joined = join_mxfp4(source);
  ASSERT_EQ(joined->tensors().size(), 2u);
  const auto* tensor = joined->find("a.gate_up_proj_mxfp4");
  ASSERT_NE(tensor, nullptr);
  EXPECT_THAT(tensor->shape, ElementsAre(1, 4, 32));
  std::vector<float> values(128);
  dequantize(tensor->type, tensor->bytes.data(), 128, values.data());
  const int row_of[4] = {0, 2, 1, 3};   // both gates, then both ups
  for (int row = 0; row < 4; ++row) {
    for (int i = 0; i < 32; ++i) EXPECT_EQ(values[row * 32 + i], value_of((row_of[row] + i) % 16) * std::ldexp(1.0f, row_of[row] - 1)) << row << " " << i;
  }
}

TEST(Mxfp4Tensors, APairThatDoesNotFitIsAnError) {
  const std::vector<uint8_t> nibbles(64), exponents(8);
  auto source = std::make_shared<Bytes>();
  source->add("down_proj_blocks", {1, 4, 1, 16}, nibbles);
  source->add("down_proj_scales", {1, 4, 2}, exponents);
  source->done();
  try {
    join_mxfp4(source);
    FAIL();
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("got [1, 4, 1, 16] and [1, 4, 2] (model.safetensors)"));
  }
}

}  // namespace
}  // namespace graft
