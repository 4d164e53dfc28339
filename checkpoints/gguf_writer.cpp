#include "checkpoints/gguf_writer.h"

#include <algorithm>
#include <bit>
#include <set>
#include <type_traits>
#include <utility>

#include <fmt/ranges.h>

#include "checkpoints/gguf_header.h"
#include "checkpoints/quote.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

template <typename Number>
void append(std::string& out, Number value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void append_text(std::string& out, std::string_view text) {
  append<uint64_t>(out, text.size());
  out += text;
}

[[noreturn]] void fail_value(const GgufEntry& entry, GgufType type) {
  fail("checkpoints", "expected a value of type {} for the metadata key {}, got another one — set type and value alike",
       gguf_type_name(type), quote(entry.key));
}

// One number in the width that `type` says; `value` is uint64_t, int64_t, double, bool or a string.
template <typename Value>
void append_value(std::string& out, const GgufEntry& entry, GgufType type, const Value& value) {
  const auto integer = [&]<typename Stored>(Stored) {
    if constexpr (std::is_same_v<Value, uint64_t> || std::is_same_v<Value, int64_t>) {
      if (std::is_signed_v<Value> != std::is_signed_v<Stored> || !std::in_range<Stored>(value)) fail_value(entry, type);
      append(out, static_cast<Stored>(value));
    } else {
      fail_value(entry, type);
    }
  };
  switch (type) {
    case GgufType::kU8:
      return integer(uint8_t{});
    case GgufType::kU16:
      return integer(uint16_t{});
    case GgufType::kU32:
      return integer(uint32_t{});
    case GgufType::kU64:
      return integer(uint64_t{});
    case GgufType::kI8:
      return integer(int8_t{});
    case GgufType::kI16:
      return integer(int16_t{});
    case GgufType::kI32:
      return integer(int32_t{});
    case GgufType::kI64:
      return integer(int64_t{});
    default:
      break;
  }
  if constexpr (std::is_same_v<Value, double>) {
    if (type == GgufType::kF32) return append(out, static_cast<float>(value));
    if (type == GgufType::kF64) return append(out, value);
  } else if constexpr (std::is_same_v<Value, bool>) {
    if (type == GgufType::kBool) return append(out, static_cast<uint8_t>(value));
  } else if constexpr (std::is_same_v<Value, std::string>) {
    if (type == GgufType::kString) return append_text(out, value);
  }
  fail_value(entry, type);
}

template <typename Value>
constexpr bool kIsList = false;
template <typename Element>
constexpr bool kIsList<std::vector<Element>> = true;

void append_entry(std::string& out, const GgufEntry& entry) {
  append_text(out, entry.key);
  append(out, static_cast<int32_t>(entry.type));
  std::visit(
      [&]<typename Value>(const Value& value) {
        if constexpr (kIsList<Value>) {
          if (entry.type != GgufType::kArray) fail_value(entry, entry.type);
          append(out, static_cast<int32_t>(entry.element_type));
          append<uint64_t>(out, value.size());
          for (const auto& element : value) append_value(out, entry, entry.element_type, element);
        } else {
          append_value(out, entry, entry.type, value);
        }
      },
      entry.value);
}

uint64_t alignment_of(const std::vector<GgufEntry>& metadata) {
  const auto entry = std::ranges::find(metadata, "general.alignment", &GgufEntry::key);
  if (entry == metadata.end()) return 32;
  const auto* value = std::get_if<uint64_t>(&entry->value);
  if (value == nullptr || !std::has_single_bit(*value) || *value < 8 || *value > 65536)
    fail("checkpoints", "expected general.alignment to be a power of two from 8 to 65536, got another value — leave it out");
  return *value;
}

uint64_t checked_bytes(const TensorDeclaration& tensor, const std::filesystem::path& file) {
  if (tensor.name.empty() || tensor.name.size() > 63)
    fail("checkpoints",
         "expected a tensor name of 1 to 63 bytes, as llama.cpp reads it, got {} of {} ({}) — this model cannot be written to "
         "GGUF",
         quote(tensor.name), tensor.name.size(), file.string());
  if (ggml_number(tensor.type) < 0)
    fail("checkpoints", "expected a type that GGUF has, got {} (tensor {}, {}) — choose another export form",
         info(tensor.type).name, quote(tensor.name), file.string());
  const bool positive = std::ranges::all_of(tensor.shape, [](int64_t dimension) { return dimension > 0; });
  const auto bytes = bytes_of(tensor.type, tensor.shape);
  if (tensor.shape.empty() || tensor.shape.size() > 4 || !positive || !bytes)
    fail("checkpoints",
         "expected 1 to 4 dimensions, the innermost a multiple of {} for {}, got [{}] (tensor {}, {}) — choose another export "
         "form",
         info(tensor.type).block_elements, info(tensor.type).name, fmt::join(tensor.shape, ", "), quote(tensor.name),
         file.string());
  return static_cast<uint64_t>(*bytes);
}

StreamedFile open_file(const std::filesystem::path& path, const std::vector<GgufEntry>& metadata,
                       const std::vector<TensorDeclaration>& tensors) {
  const uint64_t alignment = alignment_of(metadata);
  const auto align = [&](uint64_t offset) { return (offset + alignment - 1) / alignment * alignment; };
  std::string header = "GGUF";
  append<uint32_t>(header, 3);
  append<uint64_t>(header, tensors.size());
  append<uint64_t>(header, metadata.size());
  std::set<std::string_view> keys;
  for (const GgufEntry& entry : metadata) {
    if (entry.key.empty() || !keys.insert(entry.key).second)
      fail("checkpoints", "expected every metadata key once, got {} twice ({}) — drop one", quote(entry.key), path.string());
    append_entry(header, entry);
  }
  std::map<std::string, StreamedFile::Place, std::less<>> places;
  uint64_t offset = 0;
  for (const TensorDeclaration& tensor : tensors) {
    const uint64_t bytes = checked_bytes(tensor, path);
    if (!places.emplace(tensor.name, StreamedFile::Place{offset, bytes}).second)
      fail("checkpoints", "expected every tensor name once, got {} twice ({}) — check the model", quote(tensor.name),
           path.string());
    append_text(header, tensor.name);
    append(header, static_cast<uint32_t>(tensor.shape.size()));
    for (size_t i = tensor.shape.size(); i-- > 0;) append<int64_t>(header, tensor.shape[i]);  // GGUF: innermost first
    append(header, ggml_number(tensor.type));
    append<uint64_t>(header, offset);
    offset = align(offset + bytes);
  }
  header.resize(align(header.size()), '\0');
  for (auto& [name, place] : places) place.offset += header.size();
  return StreamedFile(path, header, std::move(places), header.size() + offset);
}

template <typename Kept, typename Given>
GgufEntry list_entry(std::string key, GgufType type, const std::vector<Given>& values) {
  return {std::move(key), GgufType::kArray, type, std::vector<Kept>(values.begin(), values.end())};
}

}  // namespace

GgufWriter::GgufWriter(const std::filesystem::path& path, const std::vector<GgufEntry>& metadata,
                       const std::vector<TensorDeclaration>& tensors)
    : file_(open_file(path, metadata, tensors)) {}

GgufEntry gguf_string(std::string key, std::string value) { return {std::move(key), GgufType::kString, {}, std::move(value)}; }
GgufEntry gguf_u32(std::string key, uint32_t value) { return {std::move(key), GgufType::kU32, {}, uint64_t{value}}; }
GgufEntry gguf_i32(std::string key, int32_t value) { return {std::move(key), GgufType::kI32, {}, int64_t{value}}; }
GgufEntry gguf_u64(std::string key, uint64_t value) { return {std::move(key), GgufType::kU64, {}, value}; }
GgufEntry gguf_f32(std::string key, float value) { return {std::move(key), GgufType::kF32, {}, double{value}}; }
GgufEntry gguf_bool(std::string key, bool value) { return {std::move(key), GgufType::kBool, {}, value}; }
GgufEntry gguf_strings(std::string key, std::vector<std::string> values) {
  return {std::move(key), GgufType::kArray, GgufType::kString, std::move(values)};
}
GgufEntry gguf_i32s(std::string key, std::vector<int32_t> values) {
  return list_entry<int64_t>(std::move(key), GgufType::kI32, values);
}
GgufEntry gguf_u32s(std::string key, std::vector<uint32_t> values) {
  return list_entry<uint64_t>(std::move(key), GgufType::kU32, values);
}
GgufEntry gguf_f32s(std::string key, std::vector<float> values) {
  return list_entry<double>(std::move(key), GgufType::kF32, values);
}

}  // namespace graft
