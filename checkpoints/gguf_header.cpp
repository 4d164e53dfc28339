#include "checkpoints/gguf_header.h"

#include <algorithm>
#include <bit>
#include <string_view>

#include <fmt/ranges.h>

#include "checkpoints/byte_cursor.h"
#include "checkpoints/gguf_metadata.h"
#include "checkpoints/quote.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

// Bounds far above every known model. They cap what a damaged header can make graft allocate.
constexpr uint64_t kMaxTensorNameBytes = 1 << 10;
constexpr uint64_t kMaxAlignment = 1 << 16;
constexpr uint64_t kMinEntryBytes = 8 + 1 + 4 + 1;               // key length, key, type, value
constexpr uint64_t kMinTensorInfoBytes = 8 + 1 + 4 + 8 + 4 + 8;  // name, dimensions, type, offset

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
         cursor.file().string(), kGgufCopyAgain);
  std::vector<int64_t> shape(num_dimensions);
  for (auto& dimension : shape) {
    dimension = cursor.read<int64_t>("a tensor's dimension");
    if (dimension < 1)
      fail("checkpoints", "expected dimensions of at least 1, got {} (tensor {}, {}) — {}", dimension, quote(name),
           cursor.file().string(), kGgufCopyAgain);
  }
  std::ranges::reverse(shape);  // GGUF writes the innermost first
  return shape;
}

struct Placement {
  uint64_t offset = 0;  // from the data section's start
  uint64_t bytes = 0;
};

StoredTensor read_tensor_info(ByteCursor& cursor, uint64_t alignment, Placement& placement) {
  const std::string_view name = read_gguf_text(cursor, "a tensor's name");
  if (name.empty() || name.size() > kMaxTensorNameBytes)
    fail("checkpoints", "expected a tensor name of 1 to {} bytes, got {} ({}, byte {}) — {}", kMaxTensorNameBytes, name.size(),
         cursor.file().string(), cursor.position(), kGgufCopyAgain);
  StoredTensor tensor{.name = std::string(name), .file = cursor.file()};
  tensor.shape = read_shape(cursor, name);
  tensor.type = read_tensor_type(cursor, name);
  placement.offset = cursor.read<uint64_t>("a tensor's offset");
  if (placement.offset % alignment != 0)
    fail("checkpoints", "expected an offset that is a multiple of the alignment {}, got {} (tensor {}, {}) — {}", alignment,
         placement.offset, quote(name), cursor.file().string(), kGgufCopyAgain);
  const TensorTypeInfo& layout = info(tensor.type);
  if (tensor.shape.back() % layout.block_elements != 0)
    fail("checkpoints", "expected rows of whole {} blocks of {} elements, got rows of {} (tensor {}, {}) — {}", layout.name,
         layout.block_elements, tensor.shape.back(), quote(name), cursor.file().string(), kGgufCopyAgain);
  const auto bytes = bytes_of(tensor.type, tensor.shape);
  if (!bytes)
    fail("checkpoints", "expected a tensor that fits in memory, got dimensions [{}] (tensor {}, {}) — {}",
         fmt::join(tensor.shape, ", "), quote(name), cursor.file().string(), kGgufCopyAgain);
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
           quote(tensors[order[k - 1]].name), tensor.file.string(), kGgufCopyAgain);
  }
}

uint64_t alignment_of(const std::vector<GgufEntry>& metadata, const std::filesystem::path& file) {
  const auto entry = std::ranges::find(metadata, "general.alignment", &GgufEntry::key);
  if (entry == metadata.end()) return 32;
  const auto* value = std::get_if<uint64_t>(&entry->value);
  if (value == nullptr || !std::has_single_bit(*value) || *value < 8 || *value > kMaxAlignment)
    fail("checkpoints", "expected general.alignment to be a power of two from 8 to {}, got {} ({}) — {}", kMaxAlignment,
         value == nullptr ? gguf_type_name(entry->type) : std::to_string(*value), file.string(), kGgufCopyAgain);
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
         num_entries, num_tensors, bytes.size(), file.string(), kGgufCopyAgain);

  GgufHeader header;
  header.metadata = read_gguf_metadata(cursor, num_entries);
  const uint64_t alignment = alignment_of(header.metadata, file);
  if (num_tensors > cursor.remaining() / kMinTensorInfoBytes)
    fail("checkpoints", "expected {} tensors, got only {} bytes for their descriptions ({}) — {}", num_tensors,
         cursor.remaining(), file.string(), kGgufCopyAgain);
  header.tensors.reserve(std::min(num_tensors, kGgufMostReserved));
  std::vector<Placement> placements;
  for (uint64_t i = 0; i < num_tensors; ++i)
    header.tensors.push_back(read_tensor_info(cursor, alignment, placements.emplace_back()));

  const uint64_t data_start = (cursor.position() + alignment - 1) / alignment * alignment;
  const uint64_t data_bytes = data_start < bytes.size() ? bytes.size() - data_start : 0;
  check_placements(header.tensors, placements, data_bytes);
  for (size_t i = 0; i < placements.size(); ++i)
    header.tensors[i].bytes = bytes.subspan(data_start + placements[i].offset, placements[i].bytes);
  return header;
}

}  // namespace graft
