#include "checkpoints/gguf_header.h"

#include <algorithm>
#include <bit>
#include <string_view>
#include <unordered_set>

#include <fmt/ranges.h>
#include "checkpoints/byte_cursor.h"
#include "checkpoints/quote.h"

#include "kernels/common/error.h"

namespace graft {
namespace {

// Bounds far above every known model. They cap what a damaged header can make graft allocate.
constexpr uint64_t kMaxKeyBytes = 1 << 16;
constexpr uint64_t kMaxTensorNameBytes = 1 << 10;
constexpr uint64_t kMaxMetadataBytes = uint64_t{1} << 28;
constexpr uint64_t kMaxAlignment = 1 << 16;
constexpr uint64_t kMinEntryBytes = 8 + 1 + 4 + 1;               // key length, key, type, value
constexpr uint64_t kMinTensorInfoBytes = 8 + 1 + 4 + 8 + 4 + 8;  // name, dimensions, type, offset
constexpr const char* kCopyAgain = "the file is damaged; copy or convert it again";

std::string_view read_text(ByteCursor& cursor, std::string_view what) {
  const auto length = cursor.read<uint64_t>(what);
  const auto text = cursor.take(length, what);
  return {reinterpret_cast<const char*>(text.data()), text.size()};
}

bool read_bool(ByteCursor& cursor, std::string_view what) {
  const auto byte = cursor.read<uint8_t>(what);
  if (byte > 1)
    fail("checkpoints", "expected 0 or 1 for the boolean {}, got {} ({}) — {}", quote(what), byte, cursor.file().string(),
         kCopyAgain);
  return byte == 1;
}

template <typename Stored, typename Kept>
std::vector<Kept> read_numbers(ByteCursor& cursor, uint64_t count, std::string_view key) {
  if (count > cursor.remaining() / sizeof(Stored))
    fail("checkpoints", "expected the {} elements of array {}, got only {} more bytes ({}) — {}", count, quote(key),
         cursor.remaining(), cursor.file().string(), kCopyAgain);
  const auto bytes = cursor.take(count * sizeof(Stored), key);
  std::vector<Kept> values(count);
  for (uint64_t i = 0; i < count; ++i) {
    Stored value;
    std::memcpy(&value, bytes.data() + i * sizeof(Stored), sizeof(Stored));
    values[i] = static_cast<Kept>(value);
  }
  return values;
}

std::vector<std::string> read_strings(ByteCursor& cursor, uint64_t count, std::string_view key) {
  if (count > cursor.remaining() / sizeof(uint64_t))
    fail("checkpoints", "expected the {} strings of array {}, got only {} more bytes ({}) — {}", count, quote(key),
         cursor.remaining(), cursor.file().string(), kCopyAgain);
  std::vector<std::string> values;
  values.reserve(count);
  for (uint64_t i = 0; i < count; ++i) values.emplace_back(read_text(cursor, key));
  return values;
}

std::vector<bool> read_bools(ByteCursor& cursor, uint64_t count, std::string_view key) {
  if (count > cursor.remaining())
    fail("checkpoints", "expected the {} booleans of array {}, got only {} more bytes ({}) — {}", count, quote(key),
         cursor.remaining(), cursor.file().string(), kCopyAgain);
  std::vector<bool> values(count);
  for (uint64_t i = 0; i < count; ++i) values[i] = read_bool(cursor, key);
  return values;
}

[[noreturn]] void fail_value_type(const ByteCursor& cursor, std::string_view key, int32_t type) {
  fail("checkpoints", "expected a GGUF value type 0 to 12, got {} (key {}, {}, byte {}) — {}", type, quote(key),
       cursor.file().string(), cursor.position(), kCopyAgain);
}

GgufValue read_array(ByteCursor& cursor, GgufType element, uint64_t count, std::string_view key) {
  switch (element) {
    case GgufType::kU8:
      return read_numbers<uint8_t, uint64_t>(cursor, count, key);
    case GgufType::kU16:
      return read_numbers<uint16_t, uint64_t>(cursor, count, key);
    case GgufType::kU32:
      return read_numbers<uint32_t, uint64_t>(cursor, count, key);
    case GgufType::kU64:
      return read_numbers<uint64_t, uint64_t>(cursor, count, key);
    case GgufType::kI8:
      return read_numbers<int8_t, int64_t>(cursor, count, key);
    case GgufType::kI16:
      return read_numbers<int16_t, int64_t>(cursor, count, key);
    case GgufType::kI32:
      return read_numbers<int32_t, int64_t>(cursor, count, key);
    case GgufType::kI64:
      return read_numbers<int64_t, int64_t>(cursor, count, key);
    case GgufType::kF32:
      return read_numbers<float, double>(cursor, count, key);
    case GgufType::kF64:
      return read_numbers<double, double>(cursor, count, key);
    case GgufType::kBool:
      return read_bools(cursor, count, key);
    case GgufType::kString:
      return read_strings(cursor, count, key);
    case GgufType::kArray:
      break;
  }
  if (element == GgufType::kArray)
    fail("checkpoints",
         "expected an array of numbers, booleans or strings, got an array of arrays (key {}, {}) — graft reads none",
         quote(key), cursor.file().string());
  fail_value_type(cursor, key, static_cast<int32_t>(element));
}

GgufValue read_value(ByteCursor& cursor, GgufType type, std::string_view key) {
  switch (type) {
    case GgufType::kU8:
      return uint64_t{cursor.read<uint8_t>(key)};
    case GgufType::kU16:
      return uint64_t{cursor.read<uint16_t>(key)};
    case GgufType::kU32:
      return uint64_t{cursor.read<uint32_t>(key)};
    case GgufType::kU64:
      return cursor.read<uint64_t>(key);
    case GgufType::kI8:
      return int64_t{cursor.read<int8_t>(key)};
    case GgufType::kI16:
      return int64_t{cursor.read<int16_t>(key)};
    case GgufType::kI32:
      return int64_t{cursor.read<int32_t>(key)};
    case GgufType::kI64:
      return cursor.read<int64_t>(key);
    case GgufType::kF32:
      return double{cursor.read<float>(key)};
    case GgufType::kF64:
      return cursor.read<double>(key);
    case GgufType::kBool:
      return read_bool(cursor, key);
    case GgufType::kString:
      return std::string(read_text(cursor, key));
    case GgufType::kArray:
      break;  // read by the caller, which keeps the element type
  }
  fail_value_type(cursor, key, static_cast<int32_t>(type));
}

std::vector<GgufEntry> read_metadata(ByteCursor& cursor, uint64_t count) {
  std::vector<GgufEntry> entries;
  entries.reserve(count);  // the caller compared it with the bytes left; an entry is less than ten times its bytes
  std::unordered_set<std::string_view> keys;
  const size_t start = cursor.position();
  for (uint64_t i = 0; i < count; ++i) {
    const std::string_view key = read_text(cursor, "a metadata key");
    if (key.empty() || key.size() > kMaxKeyBytes)
      fail("checkpoints", "expected a metadata key of 1 to {} bytes, got {} ({}, entry {}) — {}", kMaxKeyBytes, key.size(),
           cursor.file().string(), i, kCopyAgain);
    if (!keys.insert(key).second)
      fail("checkpoints", "expected every metadata key once, got {} twice ({}) — {}", quote(key), cursor.file().string(),
           kCopyAgain);
    GgufEntry entry{.key = std::string(key)};
    entry.type = static_cast<GgufType>(cursor.read<int32_t>(key));
    if (entry.type == GgufType::kArray) {
      entry.element_type = static_cast<GgufType>(cursor.read<int32_t>(key));
      const auto length = cursor.read<uint64_t>(key);
      entry.value = read_array(cursor, entry.element_type, length, key);
    } else {
      entry.value = read_value(cursor, entry.type, key);
    }
    entries.push_back(std::move(entry));
    if (cursor.position() - start > kMaxMetadataBytes)
      fail("checkpoints", "expected at most {} bytes of metadata, got more ({}, key {}) — {}", kMaxMetadataBytes,
           cursor.file().string(), quote(key), kCopyAgain);
  }
  return entries;
}

TensorType read_tensor_type(ByteCursor& cursor, std::string_view name) {
  const auto number = cursor.read<int32_t>("a tensor's type");
  if (const auto type = tensor_type_from_ggml(number)) return *type;
  fail("checkpoints",
       "expected a tensor of a type that graft reads (F32 F16 BF16 F64, Q4_0 Q4_1 Q5_0 Q5_1 Q8_0, Q2_K to Q6_K), got ggml type "
       "{} (tensor {}, "
       "{}) — take another quantisation of this model, for example Q4_K_M or Q8_0",
       number, quote(name), cursor.file().string());
}

std::vector<int64_t> read_shape(ByteCursor& cursor, std::string_view name) {
  const auto num_dimensions = cursor.read<uint32_t>("a tensor's number of dimensions");
  if (num_dimensions < 1 || num_dimensions > 4)
    fail("checkpoints", "expected 1 to 4 dimensions, got {} (tensor {}, {}) — {}", num_dimensions, quote(name),
         cursor.file().string(), kCopyAgain);
  std::vector<int64_t> shape(num_dimensions);
  for (auto& dimension : shape) {
    dimension = cursor.read<int64_t>("a tensor's dimension");
    if (dimension < 1)
      fail("checkpoints", "expected dimensions of at least 1, got {} (tensor {}, {}) — {}", dimension, quote(name),
           cursor.file().string(), kCopyAgain);
  }
  std::ranges::reverse(shape);  // GGUF writes the innermost first
  return shape;
}

struct Placement {
  uint64_t offset = 0;  // from the data section's start
  uint64_t bytes = 0;
};

StoredTensor read_tensor_info(ByteCursor& cursor, uint64_t alignment, Placement& placement) {
  const std::string_view name = read_text(cursor, "a tensor's name");
  if (name.empty() || name.size() > kMaxTensorNameBytes)
    fail("checkpoints", "expected a tensor name of 1 to {} bytes, got {} ({}, byte {}) — {}", kMaxTensorNameBytes, name.size(),
         cursor.file().string(), cursor.position(), kCopyAgain);
  StoredTensor tensor{.name = std::string(name), .file = cursor.file()};
  tensor.shape = read_shape(cursor, name);
  tensor.type = read_tensor_type(cursor, name);
  placement.offset = cursor.read<uint64_t>("a tensor's offset");
  if (placement.offset % alignment != 0)
    fail("checkpoints", "expected an offset that is a multiple of the alignment {}, got {} (tensor {}, {}) — {}", alignment,
         placement.offset, quote(name), cursor.file().string(), kCopyAgain);
  const TensorTypeInfo& layout = info(tensor.type);
  if (tensor.shape.back() % layout.block_elements != 0)
    fail("checkpoints", "expected rows of whole {} blocks of {} elements, got rows of {} (tensor {}, {}) — {}", layout.name,
         layout.block_elements, tensor.shape.back(), quote(name), cursor.file().string(), kCopyAgain);
  const auto bytes = bytes_of(tensor.type, tensor.shape);
  if (!bytes)
    fail("checkpoints", "expected a tensor that fits in memory, got dimensions [{}] (tensor {}, {}) — {}",
         fmt::join(tensor.shape, ", "), quote(name), cursor.file().string(), kCopyAgain);
  placement.bytes = static_cast<uint64_t>(*bytes);
  return tensor;
}

// Every tensor lies inside the data section and shares no byte with another.
void check_placements(const std::vector<StoredTensor>& tensors, const std::vector<Placement>& placements, uint64_t data_bytes) {
  std::vector<size_t> order(tensors.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::sort(order, {}, [&](size_t i) { return placements[i].offset; });
  for (size_t k = 0; k < order.size(); ++k) {
    const StoredTensor& tensor = tensors[order[k]];
    const auto [offset, bytes] = placements[order[k]];
    if (offset > data_bytes || bytes > data_bytes - offset)
      fail("checkpoints",
           "expected {} bytes at offset {} of the data, got a data section of {} bytes (tensor {}, {}) — the file is cut "
           "short; copy it again",
           bytes, offset, data_bytes, quote(tensor.name), tensor.file.string());
    if (k == 0) continue;
    const auto [previous_offset, previous_bytes] = placements[order[k - 1]];
    if (previous_offset + previous_bytes > offset)
      fail("checkpoints", "expected tensors that do not overlap, got {} over the end of {} ({}) — {}", quote(tensor.name),
           quote(tensors[order[k - 1]].name), tensor.file.string(), kCopyAgain);
  }
}

uint64_t alignment_of(const std::vector<GgufEntry>& metadata, const std::filesystem::path& file) {
  const auto entry = std::ranges::find(metadata, "general.alignment", &GgufEntry::key);
  if (entry == metadata.end()) return 32;
  const auto* value = std::get_if<uint64_t>(&entry->value);
  if (value == nullptr || !std::has_single_bit(*value) || *value < 8 || *value > kMaxAlignment)
    fail("checkpoints", "expected general.alignment to be a power of two from 8 to {}, got {} ({}) — {}", kMaxAlignment,
         value == nullptr ? gguf_type_name(entry->type) : std::to_string(*value), file.string(), kCopyAgain);
  return *value;
}

void check_magic_and_version(ByteCursor& cursor) {
  const auto magic = cursor.take(4, "the magic number GGUF");
  if (std::memcmp(magic.data(), "GGUF", 4) != 0)
    fail("checkpoints", "expected a GGUF file, got other first bytes ({}) — check that the path names the model itself",
         cursor.file().string());
  const auto version = cursor.read<uint32_t>("the GGUF version");
  if (version != 0 && (version & 0xffff) == 0)
    fail("checkpoints", "expected a little-endian GGUF file, got a big-endian one ({}) — convert it again without --bigendian",
         cursor.file().string());
  if (version != 2 && version != 3)
    fail("checkpoints", "expected GGUF version 2 or 3, got {} ({}) — convert the model again with a current llama.cpp", version,
         cursor.file().string());
}

}  // namespace

GgufHeader parse_gguf_header(std::span<const std::byte> bytes, const std::filesystem::path& file) {
  ByteCursor cursor(bytes, file);
  check_magic_and_version(cursor);
  const auto num_tensors = cursor.read<uint64_t>("the number of tensors");
  const auto num_entries = cursor.read<uint64_t>("the number of metadata entries");
  if (num_entries > cursor.remaining() / kMinEntryBytes || num_tensors > cursor.remaining() / kMinTensorInfoBytes)
    fail("checkpoints",
         "expected counts that the file has room for, got {} metadata entries and {} tensors in {} bytes ({}) — {}",
         num_entries, num_tensors, bytes.size(), file.string(), kCopyAgain);

  GgufHeader header;
  header.metadata = read_metadata(cursor, num_entries);
  const uint64_t alignment = alignment_of(header.metadata, file);
  if (num_tensors > cursor.remaining() / kMinTensorInfoBytes)
    fail("checkpoints", "expected {} tensors, got only {} bytes for their descriptions ({}) — {}", num_tensors,
         cursor.remaining(), file.string(), kCopyAgain);
  header.tensors.reserve(num_tensors);
  std::vector<Placement> placements(num_tensors);
  for (Placement& placement : placements) header.tensors.push_back(read_tensor_info(cursor, alignment, placement));

  const uint64_t data_start = (cursor.position() + alignment - 1) / alignment * alignment;
  const uint64_t data_bytes = data_start < bytes.size() ? bytes.size() - data_start : 0;
  check_placements(header.tensors, placements, data_bytes);
  for (size_t i = 0; i < placements.size(); ++i)
    header.tensors[i].bytes = bytes.subspan(data_start + placements[i].offset, placements[i].bytes);
  return header;
}

const char* gguf_type_name(GgufType type) {
  constexpr const char* kNames[] = {"uint8", "int8",   "uint16", "int16",  "uint32", "int32",  "float32",
                                    "bool",  "string", "array",  "uint64", "int64",  "float64"};
  const auto number = static_cast<size_t>(type);
  return number < std::size(kNames) ? kNames[number] : "unknown";
}

}  // namespace graft
