#include "checkpoints/gguf_metadata.h"

#include <algorithm>
#include <unordered_set>

#include "checkpoints/gguf_header.h"
#include "checkpoints/quote.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

// Bounds far above every known model. They cap what a damaged header can make graft allocate.
constexpr uint64_t kMaxKeyBytes = 1 << 16;
constexpr uint64_t kMaxMetadataBytes = uint64_t{1} << 28;
constexpr uint64_t kMaxTextBytes = uint64_t{1} << 26;
constexpr uint64_t kMaxArrayElements = uint64_t{1} << 24;

bool read_bool(ByteCursor& cursor, std::string_view what) {
  const auto byte = cursor.read<uint8_t>(what);
  if (byte > 1)
    fail("checkpoints", "expected 0 or 1 for the boolean {}, got {} ({}) — {}", quote(what), byte, cursor.file().string(),
         kGgufCopyAgain);
  return byte == 1;
}

template <typename Stored, typename Kept>
std::vector<Kept> read_numbers(ByteCursor& cursor, uint64_t count, std::string_view key) {
  if (count > cursor.remaining() / sizeof(Stored))
    fail("checkpoints", "expected the {} elements of array {}, got only {} more bytes ({}) — {}", count, quote(key),
         cursor.remaining(), cursor.file().string(), kGgufCopyAgain);
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
         cursor.remaining(), cursor.file().string(), kGgufCopyAgain);
  std::vector<std::string> values;
  values.reserve(std::min(count, kGgufMostReserved));
  for (uint64_t i = 0; i < count; ++i) values.emplace_back(read_gguf_text(cursor, key));
  return values;
}

std::vector<bool> read_bools(ByteCursor& cursor, uint64_t count, std::string_view key) {
  if (count > cursor.remaining())
    fail("checkpoints", "expected the {} booleans of array {}, got only {} more bytes ({}) — {}", count, quote(key),
         cursor.remaining(), cursor.file().string(), kGgufCopyAgain);
  std::vector<bool> values(count);
  for (uint64_t i = 0; i < count; ++i) values[i] = read_bool(cursor, key);
  return values;
}

[[noreturn]] void fail_value_type(const ByteCursor& cursor, std::string_view key, int32_t type) {
  fail("checkpoints", "expected a GGUF value type 0 to 12, got {} (key {}, {}, byte {}) — {}", type, quote(key),
       cursor.file().string(), cursor.position(), kGgufCopyAgain);
}

GgufValue read_array(ByteCursor& cursor, GgufType element, uint64_t count, std::string_view key) {
  if (count > kMaxArrayElements)
    fail("checkpoints", "expected at most {} elements in array {}, got {} ({}) — {}", kMaxArrayElements, quote(key), count,
         cursor.file().string(), kGgufCopyAgain);
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
      return std::string(read_gguf_text(cursor, key));
    case GgufType::kArray:
      break;  // read by the caller, which keeps the element type
  }
  fail_value_type(cursor, key, static_cast<int32_t>(type));
}

}  // namespace

std::string_view read_gguf_text(ByteCursor& cursor, std::string_view what) {
  const auto length = cursor.read<uint64_t>(what);
  if (length > kMaxTextBytes)
    fail("checkpoints", "expected at most {} bytes of text for {}, got {} ({}) — {}", kMaxTextBytes, escaped(what), length,
         cursor.file().string(), kGgufCopyAgain);
  const auto text = cursor.take(length, what);
  return {reinterpret_cast<const char*>(text.data()), text.size()};
}

std::vector<GgufEntry> read_gguf_metadata(ByteCursor& cursor, uint64_t count) {
  std::vector<GgufEntry> entries;
  entries.reserve(std::min(count, kGgufMostReserved));
  std::unordered_set<std::string_view> keys;
  const size_t start = cursor.position();
  for (uint64_t i = 0; i < count; ++i) {
    const std::string_view key = read_gguf_text(cursor, "a metadata key");
    if (key.empty() || key.size() > kMaxKeyBytes)
      fail("checkpoints", "expected a metadata key of 1 to {} bytes, got {} ({}, entry {}) — {}", kMaxKeyBytes, key.size(),
           cursor.file().string(), i, kGgufCopyAgain);
    if (!keys.insert(key).second)
      fail("checkpoints", "expected every metadata key once, got {} twice ({}) — {}", quote(key), cursor.file().string(),
           kGgufCopyAgain);
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
           cursor.file().string(), quote(key), kGgufCopyAgain);
  }
  return entries;
}

const char* gguf_type_name(GgufType type) {
  constexpr const char* kNames[] = {"uint8", "int8",   "uint16", "int16",  "uint32", "int32",  "float32",
                                    "bool",  "string", "array",  "uint64", "int64",  "float64"};
  const auto number = static_cast<size_t>(type);
  return number < std::size(kNames) ? kNames[number] : "unknown";
}

}  // namespace graft
