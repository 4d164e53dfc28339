#include "checkpoints/codecs/hub_layouts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "checkpoints/codecs/quantize_rows.h"
#include "checkpoints/quantized_tensors.h"
#include "checkpoints/safetensors_file.h"
#include "checkpoints/safetensors_writer.h"
#include "kernels/quantized/dequantize.h"
#include "tests/support/error_of.h"
#include "tests/support/files.h"
#include "tests/support/normal_values.h"

namespace graft {
namespace {

using nlohmann::ordered_json;
using ::testing::HasSubstr;

struct Case {
  const char* name;
  HubLayout layout;
  int64_t group;
  ordered_json config;
  double largest_error;   // |w - q|^2 / |w|^2 of normal values
};

ordered_json compressed(const char* format) { return {{"quant_method", "compressed-tensors"}, {"format", format}}; }

// Bounds: a little above what round-to-nearest forms of these bits have on normal values.
const Case kCases[] = {
    {"int4_32", HubLayout::kInt4, 32, compressed("pack-quantized"), 0.0095},
    {"int4_64", HubLayout::kInt4, 64, compressed("pack-quantized"), 0.011},
    {"int4_128", HubLayout::kInt4, 128, compressed("pack-quantized"), 0.0125},
    {"int4_zero", HubLayout::kInt4Zero, 64, compressed("pack-quantized"), 0.0095},
    {"int8", HubLayout::kInt8, 0, compressed("int-quantized"), 1e-4},
    {"fp8", HubLayout::kFp8, 0, compressed("float-quantized"), 8e-4},
    {"fp8_squares", HubLayout::kFp8Squares, 0, compressed("float-quantized"), 8e-4},
    {"nvfp4", HubLayout::kNvfp4, 0, compressed("nvfp4-pack-quantized"), 0.0085},
    {"mxfp4", HubLayout::kMxfp4, 0, compressed("mxfp4-pack-quantized"), 0.0135},
    {"gptq", HubLayout::kGptq, 64, {{"quant_method", "gptq"}, {"bits", 4}, {"checkpoint_format", "gptq"}}, 0.011},
    {"awq", HubLayout::kAwq, 128, {{"quant_method", "awq"}, {"bits", 4}, {"version", "gemm"}}, 0.011},
    {"nf4", HubLayout::kNf4, 64, {{"quant_method", "bitsandbytes"}, {"load_in_4bit", true}, {"bnb_4bit_quant_type", "nf4"}}, 0.0095},
};
constexpr int64_t kRows = 136, kColumns = 384;   // 136: a second square that is cut, whole words of 8 rows

struct Written {
  std::vector<float> values;    // what the blocks decode to
  double error = 0;
};

Written write(const Case& one, const std::filesystem::path& file, std::span<const float> importance = {}) {
  auto values = test::normal_values(kRows * kColumns, 11, 0.02F);
  for (int64_t i = 0; i < kColumns; ++i) values[static_cast<size_t>(i)] = 0;   // a row of zeros
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::fabs(value));
  const float global = nvfp4_global_scale(largest);
  const auto type = hub_block_type(one.layout, one.group);
  std::vector<std::byte> blocks(static_cast<size_t>(bytes_of(type, std::vector<int64_t>{kRows, kColumns}).value()));
  quantize_for_hub(one.layout, one.group, values.data(), kRows, kColumns, global, importance, blocks.data());
  auto tensors = hub_tensors(one.layout, one.group, "layer.linear", kRows, kColumns);
  const auto bytes = hub_bytes(one.layout, one.group, blocks.data(), kRows, kColumns, global);
  EXPECT_EQ(tensors.size(), bytes.size());
  SafetensorsWriter writer(file, tensors);
  for (size_t i = 0; i < tensors.size(); ++i) writer.write(tensors[i].name, bytes[i]);
  writer.finish();

  Written written;
  written.values.resize(values.size());
  dequantize(type, blocks.data(), kRows * kColumns, written.values.data());
  double squares = 0, errors = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    squares += static_cast<double>(values[i]) * values[i];
    errors += std::pow(static_cast<double>(values[i]) - written.values[i], 2);
  }
  written.error = errors / squares;
  return written;
}

TEST(HubLayouts, ComeBackAsTheyWereAndAreWhatTheLibrariesDecode) {
  const test::TemporaryFolder folder;
  for (const auto& one : kCases) {
    SCOPED_TRACE(one.name);
    const auto file = folder.path() / (std::string(one.name) + ".safetensors");
    const auto written = write(one, file);
    EXPECT_LT(written.error, one.largest_error);
    const auto source = join_quantized(std::make_shared<SafetensorsFile>(file), hub_quantization(one.config, file));
    ASSERT_EQ(source->tensors().size(), 1U);
    const auto& tensor = source->tensors()[0];
    EXPECT_EQ(tensor.name, "layer.linear.weight");
    ASSERT_EQ(tensor.shape, (std::vector<int64_t>{kRows, kColumns}));
    std::vector<float> values(written.values.size());
    dequantize(tensor.type, tensor.bytes.data(), tensor.num_elements(), values.data());
    for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], written.values[i]) << i;
    test::write_file(folder.path() / (std::string(one.name) + ".values"), {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)});
  }
  test::run_python("tests/checkpoints/hub_layouts_check.py", {folder.path().string()});
}

TEST(HubLayouts, ImportanceLowersTheErrorWhereItWeighs) {
  const test::TemporaryFolder folder;
  std::vector<float> importance(kColumns, 0.01F);
  for (int64_t i = 0; i < kColumns; i += 4) importance[static_cast<size_t>(i)] = 100;
  for (const auto layout : {HubLayout::kInt4, HubLayout::kInt4Zero, HubLayout::kNvfp4}) {
    const Case one{"w", layout, 64, {}, 0};
    const auto values = test::normal_values(kRows * kColumns, 11, 0.02F);
    const auto errors = [&](const std::vector<float>& written) {
      double sum = 0;
      for (size_t i = kColumns; i < written.size(); i += 4) sum += std::pow(static_cast<double>(values[i]) - written[i], 2);
      return sum;
    };
    const auto plain = errors(write(one, folder.path() / "a.safetensors").values), weighed = errors(write(one, folder.path() / "b.safetensors", importance).values);
    EXPECT_LT(weighed, 0.8 * plain) << static_cast<int>(layout);
  }
}

TEST(E4m3, RoundsToTheNearestAndToEven) {
  std::vector<float> numbers(127);
  for (int code = 0; code < 127; ++code) {
    const auto byte = static_cast<std::byte>(code);
    dequantize(TensorType::kF8E4M3, &byte, 1, &numbers[static_cast<size_t>(code)]);
  }
  for (int code = 0; code < 126; ++code) {
    const float low = numbers[static_cast<size_t>(code)], high = numbers[static_cast<size_t>(code) + 1], middle = (low + high) / 2;
    EXPECT_EQ(e4m3_of(low), code);
    EXPECT_EQ(e4m3_of(-low), code | 0x80);
    EXPECT_EQ(e4m3_of(std::nextafter(middle, 0.0F)), code);
    EXPECT_EQ(e4m3_of(middle), code % 2 == 0 ? code : code + 1);
    EXPECT_EQ(e4m3_of(std::nextafter(middle, 1000.0F)), code + 1);
  }
  EXPECT_EQ(e4m3_of(1e30F), 0x7e);
  EXPECT_EQ(e4m3_of(-449), 0xfe);
}

TEST(HubLayouts, WeightsThatAreNoNumbersAreRefused) {
  std::vector<float> values(kHubSlab * 128, 0.5F);
  values[300] = NAN;
  std::vector<std::byte> blocks(1 << 20);
  for (const auto& one : kCases)
    EXPECT_THAT(test::error_of([&] { quantize_for_hub(one.layout, one.group, values.data(), kHubSlab, 128, 1, {}, blocks.data()); }), HasSubstr("got nan in row 2, column 44")) << one.name;
}

class TensorsOfMemory : public TensorSource {
 public:
  void add(const std::string& name, TensorType type, std::vector<int64_t> shape, const std::string& content = "") {
    auto& bytes = memory_.emplace_back(static_cast<size_t>(bytes_of(type, shape).value()));
    std::copy(content.begin(), content.end(), bytes.begin());
    tensors_.push_back({name, type, std::move(shape), std::as_bytes(std::span<const char>(bytes)), "file"});
  }
  void finish() { index_tensors(); }

 private:
  std::vector<std::vector<char>> memory_;
};

std::string join_error(const ordered_json& config, const std::vector<TensorDeclaration>& tensors) {
  auto source = std::make_shared<TensorsOfMemory>();
  for (const auto& tensor : tensors) source->add(tensor.name, tensor.type, tensor.shape);
  source->finish();
  return test::error_of([&] { join_quantized(source, hub_quantization(config, "config.json")); });
}

TEST(QuantizedTensors, PartsThatDoNotFitAreNamed) {
  const auto pack = compressed("pack-quantized"), bytes = compressed("float-quantized");
  EXPECT_THAT(join_error(pack, {{"a.weight_packed", TensorType::kI32, {4, 8}}}), HasSubstr("expected a.weight_shape of I64, got none (file)"));
  EXPECT_THAT(join_error(pack, {{"a.weight_packed", TensorType::kI32, {4, 8}}, {"a.weight_shape", TensorType::kI64, {2}}}), HasSubstr("weight_shape of two numbers that fit"));
  EXPECT_THAT(join_error(pack, {{"a.weight_packed", TensorType::kI32, {4, 8}}, {"a.weight_g_idx", TensorType::kI32, {64}}}), HasSubstr("expected columns in their order, got weight_g_idx"));
  EXPECT_THAT(join_error(bytes, {{"a.weight", TensorType::kF8E4M3, {4, 64}}}), HasSubstr("expected a.weight_scale of F32, got none"));
  EXPECT_THAT(join_error(bytes, {{"a.weight", TensorType::kF8E4M3, {4, 64}}, {"a.weight_scale", TensorType::kF32, {3}}}), HasSubstr("one scale, one for each of 4 rows, or one for each 128 x 128"));
  EXPECT_THAT(join_error(compressed("nvfp4-pack-quantized"), {{"a.weight_packed", TensorType::kU8, {4, 32}}, {"a.weight_scale", TensorType::kF8E4M3, {4, 3}}, {"a.weight_global_scale", TensorType::kF32, {1}}}),
              HasSubstr("expected 16 of scales, got 12"));
  const ordered_json gptq = {{"quant_method", "gptq"}, {"bits", 4}};
  EXPECT_THAT(join_error(gptq, {{"a.qweight", TensorType::kI32, {8, 8}}, {"a.scales", TensorType::kF16, {3, 8}}}), HasSubstr("scales of whole groups of 64 columns for each of 8 rows"));
  EXPECT_THAT(join_error(gptq, {{"a.qweight", TensorType::kI32, {8, 8}}, {"a.scales", TensorType::kF16, {2, 8}}, {"a.qzeros", TensorType::kI32, {2, 1}}, {"a.g_idx", TensorType::kI32, {64}}}),
              HasSubstr("got 0 at column 32"));
}

// A state is a text of whoever made the file.
TEST(QuantizedTensors, StatesOfNf4AreNotBelieved) {
  const ordered_json config = {{"quant_method", "bitsandbytes"}, {"bnb_4bit_quant_type", "nf4"}};
  for (const std::string state : {"{", "[]", R"({"quant_type": "nf4", "blocksize": 64, "shape": [4294967296, 4294967296]})", R"({"quant_type": "nf4", "blocksize": 64, "shape": [-1, 64]})",
                                  R"({"quant_type": 4, "blocksize": "64", "shape": [1, 64]})", R"({"quant_type": "fp4", "blocksize": 64, "shape": [1, 64]})"}) {
    auto source = std::make_shared<TensorsOfMemory>();
    source->add("a.weight", TensorType::kU8, {32, 1});
    source->add("a.weight.quant_state.bitsandbytes__nf4", TensorType::kU8, {static_cast<int64_t>(state.size())}, state);
    source->finish();
    EXPECT_THAT(test::error_of([&] { join_quantized(source, hub_quantization(config, "config.json")); }), HasSubstr("a state of NF4 in blocks of 64, with the shape of a matrix")) << state;
  }
}

TEST(HubQuantization, WhatIsNotReadIsRefusedByName) {
  const auto refused = [](const ordered_json& config) { return test::error_of([&] { hub_quantization(config, "config.json"); }); };
  EXPECT_THAT(refused({{"quant_method", "modelopt"}}), HasSubstr("got quant_method: modelopt (config.json)"));
  EXPECT_THAT(refused(ordered_json::object()), HasSubstr("got quant_method: nothing"));
  EXPECT_THAT(refused({{"quant_method", "compressed-tensors"}, {"format", "marlin-24"}}), HasSubstr("expected format to be one of pack-quantized"));
  EXPECT_THAT(refused(ordered_json{{"quant_method", "compressed-tensors"}, {"format", "pack-quantized"}, {"transform_config", {{"config_groups", {{"u", 1}}}}}}), HasSubstr("no rotations"));
  EXPECT_THAT(refused(ordered_json{{"quant_method", "compressed-tensors"}, {"format", "pack-quantized"}, {"sparsity_config", {{"format", "sparse-24-bitmask"}}}}), HasSubstr("no sparsity"));
  EXPECT_THAT(refused({{"quant_method", "gptq"}, {"bits", 8}}), HasSubstr("bits to be one of 4 in quantization_config, got bits: 8"));
  EXPECT_THAT(refused({{"quant_method", "awq"}, {"bits", 4}, {"version", "gemv"}}), HasSubstr("got version: gemv"));
  EXPECT_THAT(refused({{"quant_method", "bitsandbytes"}, {"load_in_8bit", true}}), HasSubstr("8-bit weights of bitsandbytes"));
  EXPECT_THAT(refused({{"quant_method", "bitsandbytes"}, {"bnb_4bit_quant_type", "fp4"}}), HasSubstr("got bnb_4bit_quant_type: fp4"));
  EXPECT_THAT(refused(ordered_json{{"quant_method", "fp8"}, {"weight_block_size", {64, 64}}}), HasSubstr("blocks of 128 x 128"));
}

}  // namespace
}  // namespace graft
