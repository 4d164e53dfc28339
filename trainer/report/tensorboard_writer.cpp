#include "trainer/report/tensorboard_writer.h"

#include <array>
#include <bit>
#include <chrono>
#include <cstring>
#include <optional>

#include "checkpoints/atomic_file.h"

namespace graft {
namespace {

constexpr const char* kFileName = "events.out.tfevents.graft";   // TensorBoard looks for "tfevents" in the name

// ---- protobuf: a key (field << 3 | wire type), then the value ----
enum WireType : uint8_t { kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5 };

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}
template <typename Bits>
void put_fixed(std::string& out, Bits bits) {
  for (size_t i = 0; i < sizeof(Bits); ++i) out += static_cast<char>(bits >> (8 * i));
}
void put_key(std::string& out, int field, WireType type) { put_varint(out, static_cast<uint64_t>(field) << 3 | type); }
void put_bytes(std::string& out, int field, std::string_view bytes) {
  put_key(out, field, kLengthDelimited);
  put_varint(out, bytes.size());
  out += bytes;
}
void put_integer(std::string& out, int field, int64_t value) {
  put_key(out, field, kVarint);
  put_varint(out, static_cast<uint64_t>(value));
}

std::string scalar_value(const std::string& tag, double value) {
  std::string out;
  put_bytes(out, 1, tag);
  put_key(out, 2, kFixed32);
  put_fixed(out, std::bit_cast<uint32_t>(static_cast<float>(value)));
  return out;
}

// SummaryMetadata { 1: PluginData { 1: "text" } }, TensorProto { 1: dtype DT_STRING = 7, 2: shape { 2: dim { 1: 1 } }, 8: string_val }.
std::string text_value(const std::string& tag, const std::string& text) {
  std::string plugin, metadata, dimension, shape, tensor, out;
  put_bytes(plugin, 1, "text");
  put_bytes(metadata, 1, plugin);
  put_integer(dimension, 1, 1);
  put_bytes(shape, 2, dimension);
  put_integer(tensor, 1, 7);
  put_bytes(tensor, 2, shape);
  put_bytes(tensor, 8, text);
  put_bytes(out, 1, tag);
  put_bytes(out, 8, tensor);
  put_bytes(out, 9, metadata);
  return out;
}

// ---- TFRecord ----
uint32_t masked_crc32c(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8u; }

std::string record_of(std::string_view data) {
  std::string record;
  put_fixed(record, static_cast<uint64_t>(data.size()));
  put_fixed(record, masked_crc32c(record));
  record += data;
  put_fixed(record, masked_crc32c(data));
  return record;
}

template <typename Bits>
Bits get_fixed(std::string_view bytes) {
  Bits value = 0;
  for (size_t i = 0; i < sizeof(Bits); ++i) value |= static_cast<Bits>(static_cast<uint8_t>(bytes[i])) << (8 * i);
  return value;
}

// The first record's data; nothing when it is cut short or damaged.
std::optional<std::string_view> first_record(std::string_view bytes) {
  if (bytes.size() < 16 || get_fixed<uint32_t>(bytes.substr(8)) != masked_crc32c(bytes.substr(0, 8))) return std::nullopt;
  const uint64_t length = get_fixed<uint64_t>(bytes);
  if (length > bytes.size() - 16) return std::nullopt;
  const std::string_view data = bytes.substr(12, length);
  if (get_fixed<uint32_t>(bytes.substr(12 + length)) != masked_crc32c(data)) return std::nullopt;
  return data;
}

// Our own events begin with wall_time (9 bytes), then the step's key and varint.
int64_t step_of(std::string_view event) {
  uint64_t step = 0;
  if (event.size() < 11 || event[9] != (2 << 3 | kVarint)) return 0;
  for (size_t i = 10, shift = 0; i < event.size() && shift < 64; ++i, shift += 7) {
    step |= static_cast<uint64_t>(event[i] & 0x7F) << shift;
    if (!(event[i] & 0x80)) break;
  }
  return static_cast<int64_t>(step);
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static const std::array<uint32_t, 256> kTable = [] {
    std::array<uint32_t, 256> table{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0x82F63B78u : 0);   // 0x1EDC6F41 reflected
      table[i] = value;
    }
    return table;
  }();
  uint32_t crc = ~0u;
  for (const char byte : bytes) crc = kTable[(crc ^ static_cast<uint8_t>(byte)) & 0xFF] ^ crc >> 8;
  return ~crc;
}

TensorboardWriter::TensorboardWriter(const std::filesystem::path& folder) {
  make_private_directory(folder);
  file_ = AppendFile(folder / kFileName);
  if (file_.size() > 0) return;
  std::string version;
  put_bytes(version, 3, "brain.Event:2");
  append_event(0, -1, version);
}

void TensorboardWriter::append_event(int64_t step, double wall_time, std::string_view payload) {
  if (wall_time < 0) wall_time = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  std::string event;
  put_key(event, 1, kFixed64);
  put_fixed(event, std::bit_cast<uint64_t>(wall_time));
  put_integer(event, 2, step);
  event += payload;
  file_.append(record_of(event));
}

void TensorboardWriter::add_scalars(int64_t step, const std::vector<std::pair<std::string, double>>& values, double wall_time) {
  std::string summary, payload;
  for (const auto& [tag, value] : values) put_bytes(summary, 1, scalar_value(tag, value));
  put_bytes(payload, 5, summary);
  append_event(step, wall_time, payload);
}

void TensorboardWriter::add_text(int64_t step, const std::string& tag, const std::string& markdown, double wall_time) {
  std::string summary, payload;
  put_bytes(summary, 1, text_value(tag, markdown));
  put_bytes(payload, 5, summary);
  append_event(step, wall_time, payload);
}

void TensorboardWriter::cut_back_to(int64_t step) {
  const std::string content = file_.read_all();
  std::string_view rest = content;
  while (const auto data = first_record(rest)) {
    if (step_of(*data) > step) break;
    rest.remove_prefix(data->size() + 16);
  }
  if (!rest.empty()) file_.truncate(content.size() - rest.size());
}

}  // namespace graft
