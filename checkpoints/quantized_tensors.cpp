#include "checkpoints/quantized_tensors.h"

#include <array>
#include <cstring>

#include <fmt/ranges.h>

#include "checkpoints/codecs/grouped_blocks.h"
#include "checkpoints/on_all_cores.h"
#include "kernels/common/error.h"
#include "kernels/quantized/block_decoders.h"
#include "kernels/quantized/dequantize.h"

namespace graft {
namespace {

using Method = HubQuantization::Method;

// The parts of a matrix, by how their names end behind the module's. The first is what the matrix is found by.
constexpr std::string_view kPacked = ".weight_packed", kWeight = ".weight", kWords = ".qweight";
// What says nothing of the weights' values: sizes that are looked at beside the codes, and scales of activations and caches.
constexpr std::array<std::string_view, 17> kOtherParts = {
    ".weight_scale", ".weight_scale_inv", ".weight_shape", ".weight_zero_point", ".weight_global_scale", ".weight_g_idx", ".input_scale", ".input_zero_point", ".input_global_scale",
    ".output_scale", ".k_scale", ".v_scale", ".q_scale", ".qzeros", ".scales", ".g_idx", ".activation_scale"};
constexpr std::array<std::string_view, 5> kNf4Parts = {".weight.absmax", ".weight.quant_map", ".weight.nested_absmax", ".weight.nested_quant_map", ".weight.quant_state.bitsandbytes__nf4"};

template <typename Names>
std::string_view ending_of(std::string_view name, const Names& endings) {
  for (const std::string_view ending : endings)
    if (name.ends_with(ending)) return ending;
  return {};
}

std::string text_of(const StoredTensor& tensor) { return fmt::format("{} [{}]", info(tensor.type).name, fmt::join(tensor.shape, ", ")); }

template <typename T>
std::vector<T> numbers_of(const StoredTensor& tensor) {
  std::vector<T> numbers(tensor.bytes.size() / sizeof(T));
  std::memcpy(numbers.data(), tensor.bytes.data(), numbers.size() * sizeof(T));
  return numbers;
}

template <typename T>
std::span<const T> bytes_as(const StoredTensor& tensor) {
  static_assert(sizeof(T) == 1);
  return {reinterpret_cast<const T*>(tensor.bytes.data()), tensor.bytes.size()};
}

std::vector<float> floats_of(const StoredTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
  dequantize(tensor.type, tensor.bytes.data(), tensor.num_elements(), values.data());
  return values;
}

// One quantised matrix of the source.
class Matrix {
 public:
  Matrix(const TensorSource& source, std::string module, const StoredTensor& codes) : source_(source), module_(std::move(module)), codes_(codes) {}

  const std::string& module() const { return module_; }
  const StoredTensor& codes() const { return codes_; }
  const StoredTensor* find(std::string_view ending) const { return source_.find(module_ + std::string(ending)); }
  const StoredTensor& part(std::string_view ending, TensorType type) const {
    const auto* found = find(ending);
    if (!found || found->type != type) {
      fail("checkpoints", "expected {}{} of {}, got {} ({}) — the file is damaged, or quantization_config belongs to another model", module_, ending, info(type).name,
           found ? text_of(*found) : "none", codes_.file.string());
    }
    return *found;
  }
  void check_type(TensorType type, size_t dimensions) const {
    if (codes_.type != type || codes_.shape.size() != dimensions) misfit(fmt::format("codes of {} with {} dimensions", info(type).name, dimensions), codes_);
  }
  [[noreturn]] void misfit(const std::string& expected, const StoredTensor& got) const {
    fail("checkpoints", "{}: expected {}, got {} {} ({}) — the file is damaged, or quantization_config belongs to another model", module_, expected, got.name, text_of(got), got.file.string());
  }
  int64_t rows = 0, columns = 0;

 private:
  const TensorSource& source_;
  std::string module_;
  const StoredTensor& codes_;
};

struct Rectangle {
  int64_t rows = 0, columns = 0;
};

// Which part of [rows, columns] shares a scale, by the shape of the scales: the whole, a row, or 128 x 128.
Rectangle rectangle_of(const Matrix& matrix, const StoredTensor& scale) {
  constexpr int64_t kSide = 128;
  if (scale.num_elements() == 1) return {matrix.rows, matrix.columns};
  const bool two = scale.shape.size() == 2;
  if (scale.num_elements() == matrix.rows && (!two || scale.shape[1] == 1)) return {1, matrix.columns};
  if (two && scale.shape[0] == (matrix.rows + kSide - 1) / kSide && scale.shape[1] == (matrix.columns + kSide - 1) / kSide) return {kSide, kSide};
  matrix.misfit(fmt::format("one scale, one for each of {} rows, or one for each 128 x 128", matrix.rows), scale);
}

// Groups of INT4 from the shape of the scales, [rows, groups] or [groups, rows].
int64_t group_of(const Matrix& matrix, const StoredTensor& scale, size_t of_groups) {
  const bool fits = scale.shape.size() == 2 && scale.shape[1 - of_groups] == matrix.rows && scale.shape[of_groups] > 0 && matrix.columns % scale.shape[of_groups] == 0;
  if (!fits) matrix.misfit(fmt::format("scales of whole groups of {} columns for each of {} rows", matrix.columns, matrix.rows), scale);
  return matrix.columns / scale.shape[of_groups];
}

GroupedBlocks packed_words(Matrix& matrix) {
  matrix.check_type(TensorType::kI32, 2);
  if (matrix.find(".weight_g_idx")) fail("checkpoints", "{}: expected columns in their order, got weight_g_idx ({}) — graft reads actorder \"static\" and null, not \"group\"", matrix.module(), matrix.codes().file.string());
  const auto& shape = matrix.part(".weight_shape", TensorType::kI64);
  const auto sizes = numbers_of<int64_t>(shape);
  const auto& words = matrix.codes().shape;
  if (sizes.size() != 2 || sizes[0] != words[0] || (sizes[1] != words[1] * 8 && sizes[1] != words[1] * 4)) matrix.misfit("weight_shape of two numbers that fit words of 8 codes of four bits or 4 of eight", matrix.codes());
  matrix.rows = sizes[0], matrix.columns = sizes[1];
  const auto* scale = matrix.find(".weight_scale");
  if (!scale) matrix.part(".weight_scale", TensorType::kBF16);   // names what is missing
  const int64_t group = group_of(matrix, *scale, 1);
  const auto* zero = matrix.find(".weight_zero_point");
  if (sizes[1] == words[1] * 8) {
    const auto zeros = zero ? numbers_of<uint32_t>(matrix.part(".weight_zero_point", TensorType::kI32)) : std::vector<uint32_t>();
    return int4_blocks(matrix.module(), matrix.rows, matrix.columns, group, numbers_of<uint32_t>(matrix.codes()), floats_of(*scale), zeros);
  }
  if (zero) matrix.misfit("8-bit codes without zero points", *zero);
  auto codes = numbers_of<int8_t>(matrix.codes());
  for (auto& code : codes) code = static_cast<int8_t>(static_cast<uint8_t>(code) - 128);
  return int8_blocks(matrix.module(), matrix.rows, matrix.columns, codes, 1, group, floats_of(*scale));
}

GroupedBlocks packed_fp4(Matrix& matrix) {
  matrix.check_type(TensorType::kU8, 2);
  matrix.rows = matrix.codes().shape[0], matrix.columns = matrix.codes().shape[1] * 2;
  const auto packed = bytes_as<uint8_t>(matrix.codes());
  if (!matrix.find(".weight_global_scale")) return mxfp4_blocks(matrix.module(), matrix.rows, matrix.columns, packed, bytes_as<uint8_t>(matrix.part(".weight_scale", TensorType::kU8)));
  const auto global = floats_of(matrix.part(".weight_global_scale", TensorType::kF32));
  if (global.size() != 1) matrix.misfit("one global scale", *matrix.find(".weight_global_scale"));
  return nvfp4_blocks(matrix.module(), matrix.rows, matrix.columns, packed, bytes_as<uint8_t>(matrix.part(".weight_scale", TensorType::kF8E4M3)), global[0]);
}

// Codes of a byte, INT8 or FP8.
GroupedBlocks scaled(Matrix& matrix, std::string_view scale_ending) {
  if (matrix.codes().shape.size() != 2) matrix.misfit("a matrix", matrix.codes());
  matrix.rows = matrix.codes().shape[0], matrix.columns = matrix.codes().shape[1];
  const auto* scale = matrix.find(scale_ending);
  if (!scale) matrix.part(scale_ending, TensorType::kF32);
  const auto [rows, columns] = rectangle_of(matrix, *scale);
  if (matrix.codes().type == TensorType::kF8E4M3) return fp8_blocks(matrix.module(), matrix.rows, matrix.columns, bytes_as<uint8_t>(matrix.codes()), rows, columns, floats_of(*scale));
  if (const auto* zero = matrix.find(".weight_zero_point")) {
    for (const std::byte byte : zero->bytes)
      if (byte != std::byte{}) fail("checkpoints", "{}: expected symmetric INT8, got zero points ({}) — take the symmetric or the unquantised model", matrix.module(), zero->file.string());
  }
  return int8_blocks(matrix.module(), matrix.rows, matrix.columns, bytes_as<int8_t>(matrix.codes()), rows, columns, floats_of(*scale));
}

GroupedBlocks gptq(Matrix& matrix, int zero_offset) {
  matrix.check_type(TensorType::kI32, 2);
  matrix.rows = matrix.codes().shape[1], matrix.columns = matrix.codes().shape[0] * 8;
  const auto& scales = matrix.part(".scales", TensorType::kF16);
  const int64_t group = group_of(matrix, scales, 0);
  if (matrix.find(".g_idx")) {
    const auto order = numbers_of<int32_t>(matrix.part(".g_idx", TensorType::kI32));
    if (static_cast<int64_t>(order.size()) != matrix.columns) matrix.misfit(fmt::format("g_idx of {} columns", matrix.columns), *matrix.find(".g_idx"));
    for (size_t i = 0; i < order.size(); ++i)
      if (order[i] != static_cast<int64_t>(i) / group)
        fail("checkpoints", "{}: expected g_idx in groups of {} columns in their order, got {} at column {} ({}) — graft reads GPTQ without act-order (desc_act: false)", matrix.module(), group, order[i], i, scales.file.string());
  }
  return gptq_blocks(matrix.module(), matrix.rows, matrix.columns, group, numbers_of<uint32_t>(matrix.codes()), floats_of(scales), numbers_of<uint32_t>(matrix.part(".qzeros", TensorType::kI32)), zero_offset);
}

GroupedBlocks awq(Matrix& matrix) {
  matrix.check_type(TensorType::kI32, 2);
  matrix.rows = matrix.codes().shape[1] * 8, matrix.columns = matrix.codes().shape[0];
  const auto& scales = matrix.part(".scales", TensorType::kF16);
  return awq_blocks(matrix.module(), matrix.rows, matrix.columns, group_of(matrix, scales, 0), numbers_of<uint32_t>(matrix.codes()), floats_of(scales), numbers_of<uint32_t>(matrix.part(".qzeros", TensorType::kI32)));
}

GroupedBlocks nf4(Matrix& matrix) {
  const auto& state_bytes = matrix.part(kNf4Parts[4], TensorType::kU8);
  const auto state = nlohmann::json::parse(bytes_as<char>(state_bytes), nullptr, false);
  const auto entry = [&](const char* key) { return state.is_object() && state.contains(key) ? state[key] : nlohmann::json(); };
  const auto number = [&](const nlohmann::json& value) { return value.is_number_integer() ? value.get<int64_t>() : 0; };
  const auto shape = entry("shape");
  if (shape.is_array() && shape.size() == 2) matrix.rows = number(shape[0]), matrix.columns = number(shape[1]);
  // The codes bound the sizes, so that no product of them overflows.
  const auto num_codes = static_cast<int64_t>(matrix.codes().bytes.size()) * 2;
  const bool fits = matrix.rows > 0 && matrix.columns > 0 && matrix.rows <= num_codes / matrix.columns;
  if (!fits || entry("quant_type") != "nf4" || number(entry("blocksize")) != BlockNF4::kElements)
    matrix.misfit("a state of NF4 in blocks of 64, with the shape of a matrix", state_bytes);
  const auto map = floats_of(matrix.part(kNf4Parts[1], TensorType::kF32));
  for (size_t i = 0; i < 16; ++i)
    if (map.size() != 16 || map[i] != normal_float_4(static_cast<int>(i))) matrix.misfit("the 16 values of NF4", *matrix.find(kNf4Parts[1]));
  const auto packed = bytes_as<uint8_t>(matrix.codes());
  const auto* statistics = matrix.find(kNf4Parts[0]);
  if (statistics && statistics->type == TensorType::kF32) return nf4_blocks(matrix.module(), matrix.rows, matrix.columns, packed, floats_of(*statistics));
  const auto& codes = matrix.part(kNf4Parts[0], TensorType::kU8);
  const auto of_blocks = nf4_statistics(matrix.module(), bytes_as<uint8_t>(codes), floats_of(matrix.part(kNf4Parts[3], TensorType::kF32)), floats_of(matrix.part(kNf4Parts[2], TensorType::kF32)),
                                        number(entry("nested_blocksize")), entry("nested_offset").is_number() ? entry("nested_offset").get<float>() : 0.0F);
  return nf4_blocks(matrix.module(), matrix.rows, matrix.columns, packed, of_blocks);
}

class QuantizedTensors : public TensorSource {
 public:
  QuantizedTensors(std::shared_ptr<const TensorSource> source, const HubQuantization& quantization) : source_(std::move(source)), quantization_(quantization) {
    files_ = source_->files();
    for (const auto& tensor : source_->tensors()) {
      if (const auto ending = ending_of(tensor.name, ending_of_codes()); !ending.empty() && is_codes(tensor, ending)) {
        matrices_.emplace_back(*source_, tensor.name.substr(0, tensor.name.size() - ending.size()), tensor);
        tensors_.push_back({matrices_.back().module() + std::string(kWeight), tensor.type, {}, {}, tensor.file});
        places_.push_back(tensors_.size() - 1);
      } else if (!is_other_part(tensor)) {
        tensors_.push_back(tensor);
      }
    }
    join_all();
    index_tensors();
  }
  void forget(std::span<const std::byte> bytes) const override { source_->forget(bytes); }

 private:
  std::array<std::string_view, 2> ending_of_codes() const {
    switch (quantization_.method) {
      case Method::kCompressedTensors: return {kPacked, kWeight};
      case Method::kGptq:
      case Method::kAwq: return {kWords, kWords};
      default: return {kWeight, kWeight};
    }
  }

  // NAME.weight may also be a plain matrix.
  bool is_codes(const StoredTensor& tensor, std::string_view ending) const {
    if (ending != kWeight) return true;
    if (quantization_.method == Method::kBitsAndBytes) return tensor.type == TensorType::kU8;
    return tensor.type == TensorType::kF8E4M3 || (tensor.type == TensorType::kI8 && quantization_.method == Method::kCompressedTensors);
  }

  bool is_other_part(const StoredTensor& tensor) const {
    return !(quantization_.method == Method::kBitsAndBytes ? ending_of(tensor.name, kNf4Parts) : ending_of(tensor.name, kOtherParts)).empty();
  }

  GroupedBlocks joined(Matrix& matrix) const {
    switch (quantization_.method) {
      case Method::kGptq: return gptq(matrix, quantization_.gptq_zero_offset);
      case Method::kAwq: return awq(matrix);
      case Method::kBitsAndBytes: return nf4(matrix);
      case Method::kFp8: return scaled(matrix, matrix.find(".weight_scale_inv") ? ".weight_scale_inv" : ".weight_scale");
      default: break;
    }
    if (matrix.codes().name.ends_with(kPacked)) return matrix.codes().type == TensorType::kI32 ? packed_words(matrix) : packed_fp4(matrix);
    return scaled(matrix, ".weight_scale");
  }

  void join_all() {
    memory_.resize(matrices_.size());
    on_all_cores(matrices_.size(), [&](size_t i) {
      auto blocks = joined(matrices_[i]);
      memory_[i] = std::move(blocks.bytes);
      auto& tensor = tensors_[places_[i]];
      tensor.type = blocks.type;
      tensor.shape = {matrices_[i].rows, matrices_[i].columns};
      tensor.bytes = memory_[i];
      source_->forget(matrices_[i].codes().bytes);   // one copy in memory, not two
    });
    matrices_.clear();
  }

  std::shared_ptr<const TensorSource> source_;
  HubQuantization quantization_;
  std::vector<Matrix> matrices_;
  std::vector<size_t> places_;                    // of each, in tensors_
  std::vector<std::vector<std::byte>> memory_;
};

}  // namespace

std::unique_ptr<TensorSource> join_quantized(std::shared_ptr<const TensorSource> source, const HubQuantization& quantization) {
  return std::make_unique<QuantizedTensors>(std::move(source), quantization);
}

}  // namespace graft
