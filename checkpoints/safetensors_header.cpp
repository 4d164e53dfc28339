#include <algorithm>
#include <limits>

#include <fmt/ranges.h>

#include "checkpoints/byte_cursor.h"
#include "checkpoints/quote.h"
#include "checkpoints/safetensors_file.h"
#include "checkpoints/strict_json.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

constexpr uint64_t kMaxHeaderBytes = uint64_t{32} << 20;  // 100,000 tensors take about 12 MiB
constexpr size_t kMaxDimensions = 16;
constexpr const char* kWriteAgain = "the file is damaged; copy or convert it again";

[[noreturn]] void fail_entry(std::string_view expected, const nlohmann::json& got, const StoredTensor& tensor) {
  fail("checkpoints", "expected {}, got {} (tensor {}, {}) — {}", expected,
       got.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace).substr(0, 120), quote(tensor.name),
       tensor.file.string(), kWriteAgain);
}

// An array of integers from 0 to 2^63 - 1.
std::vector<int64_t> read_integers(const nlohmann::json& list, std::string_view expected, const StoredTensor& tensor) {
  if (!list.is_array() || list.size() > kMaxDimensions) fail_entry(expected, list, tensor);
  std::vector<int64_t> integers;
  for (const auto& item : list) {
    if (!item.is_number_unsigned() || item.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      fail_entry(expected, list, tensor);
    integers.push_back(item.get<int64_t>());
  }
  return integers;
}

struct Range {
  int64_t begin = 0, end = 0;  // bytes from the data's start
};

StoredTensor read_entry(const std::string& name, const nlohmann::json& entry, const std::filesystem::path& file, Range& range) {
  StoredTensor tensor{.name = name, .file = file};
  if (!entry.is_object() || entry.size() != 3 || !entry.contains("dtype") || !entry.contains("shape") ||
      !entry.contains("data_offsets"))
    fail_entry("{\"dtype\", \"shape\", \"data_offsets\"} and no other key", entry, tensor);
  const auto& dtype = entry["dtype"];
  const auto type = dtype.is_string() ? tensor_type_from_name(dtype.get<std::string>()) : std::nullopt;
  if (!type || info(*type).quantized)
    fail_entry("a dtype that graft reads (F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL F8_E4M3 F8_E5M2)", dtype, tensor);
  tensor.type = *type;
  tensor.shape = read_integers(entry["shape"], "a shape of at most 16 integers from 0 on", tensor);
  const auto offsets = read_integers(entry["data_offsets"], "two data_offsets from 0 on", tensor);
  if (offsets.size() != 2 || offsets[0] > offsets[1])
    fail_entry("data_offsets [begin, end] with begin <= end", entry["data_offsets"], tensor);
  range = {offsets[0], offsets[1]};
  const auto bytes = bytes_of(tensor.type, tensor.shape);
  if (!bytes || *bytes != range.end - range.begin)
    fail("checkpoints", "expected {} bytes for {} of shape [{}], got data_offsets [{}, {}], which hold {} (tensor {}, {}) — {}",
         bytes ? std::to_string(*bytes) : "fewer than 2^63", info(tensor.type).name, fmt::join(tensor.shape, ", "), range.begin,
         range.end, range.end - range.begin, quote(name), file.string(), kWriteAgain);
  return tensor;
}

std::map<std::string, std::string> read_metadata(const nlohmann::json& entry, const std::filesystem::path& file) {
  std::map<std::string, std::string> metadata;
  const bool all_strings = entry.is_object() && std::ranges::all_of(entry, [](const auto& value) { return value.is_string(); });
  if (!all_strings)
    fail("checkpoints", "expected __metadata__ to map strings to strings, got other values ({}) — {}", file.string(),
         kWriteAgain);
  for (const auto& [key, value] : entry.items()) metadata.emplace(key, value.template get<std::string>());
  return metadata;
}

// The data section, from `data_start` to the file's end, is the tensors one after the other: no hole, no overlap, no rest.
void place_tensors(std::vector<StoredTensor>& tensors, std::vector<Range>& ranges, std::span<const std::byte> bytes,
                   size_t data_start, const std::filesystem::path& file) {
  std::vector<size_t> order(tensors.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::stable_sort(order, {}, [&](size_t i) { return std::pair(ranges[i].begin, ranges[i].end); });
  const auto data_bytes = static_cast<int64_t>(bytes.size() - data_start);
  std::vector<StoredTensor> sorted;
  int64_t expected_begin = 0;
  for (const size_t i : order) {
    StoredTensor& tensor = tensors[i];
    const auto [begin, end] = ranges[i];
    if (end > data_bytes)
      fail("checkpoints",
           "expected data up to byte {}, got a data section of {} bytes (tensor {}, {}) — the file is cut short; copy it again",
           end, data_bytes, quote(tensor.name), file.string());
    if (begin != expected_begin)
      fail("checkpoints",
           "expected the data of this tensor at offset {}, right behind the one before it, got {}: {} (tensor {}, {}) — {}",
           expected_begin, begin, begin < expected_begin ? "they overlap" : "a hole", quote(tensor.name), file.string(),
           kWriteAgain);
    const auto element = static_cast<size_t>(info(tensor.type).block_bytes);
    if ((data_start + static_cast<size_t>(begin)) % element != 0)
      fail("checkpoints",
           "expected {} values at a multiple of {} bytes, got file offset {}: misaligned (tensor {}, {}) — write it again with "
           "the safetensors library",
           info(tensor.type).name, element, data_start + static_cast<size_t>(begin), quote(tensor.name), file.string());
    tensor.bytes = bytes.subspan(data_start + static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    expected_begin = end;
    sorted.push_back(std::move(tensor));
  }
  if (expected_begin != data_bytes)
    fail("checkpoints", "expected {} bytes of data, got {}: bytes that belong to no tensor ({}) — {}", expected_begin,
         data_bytes, file.string(), kWriteAgain);
  tensors = std::move(sorted);
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> bytes, const std::filesystem::path& file) {
  ByteCursor cursor(bytes, file);
  const auto length = cursor.read<uint64_t>("the length of the header");
  if (length < 2 || length > kMaxHeaderBytes || length > cursor.remaining())
    fail("checkpoints",
         "expected a header of 2 to {} bytes, got {} in a file of {} ({}) — this is no safetensors file, or it is cut short",
         kMaxHeaderBytes, length, bytes.size(), file.string());
  const auto text = cursor.take(length, "the header");
  if (static_cast<char>(text[0]) != '{')
    fail("checkpoints", "expected the header to begin with '{{', got byte {} ({}) — this is no safetensors file",
         static_cast<int>(text[0]), file.string());
  const auto json = parse_strict_json({reinterpret_cast<const char*>(text.data()), text.size()}, file, "the header", 4);

  SafetensorsHeader header;
  std::vector<Range> ranges;
  for (const auto& [name, entry] : json.items()) {
    if (name == "__metadata__")
      header.metadata = read_metadata(entry, file);
    else
      header.tensors.push_back(read_entry(name, entry, file, ranges.emplace_back()));
  }
  place_tensors(header.tensors, ranges, bytes, cursor.position(), file);
  return header;
}

}  // namespace graft
