#include "trainer/models/families/gguf_keys.h"

#include "checkpoints/gguf_writer.h"
#include "kernels/common/error.h"

namespace graft {

void GgufKeys::set(GgufEntry entry) {
  entry.key = architecture_ + "." + entry.key;
  for (auto& old : entries_) {
    if (old.key == entry.key) {
      old = std::move(entry);
      return;
    }
  }
  entries_.push_back(std::move(entry));
}

void GgufKeys::u32(const std::string& key, int64_t value) { set({key, GgufType::kU32, GgufType::kString, static_cast<uint64_t>(value)}); }
void GgufKeys::f32(const std::string& key, double value) { set({key, GgufType::kF32, GgufType::kString, value}); }
void GgufKeys::list(const std::string& key, const std::vector<int64_t>& values) { set({key, GgufType::kArray, GgufType::kI32, values}); }
void GgufKeys::text(const std::string& key, const std::string& value) { set({key, GgufType::kString, GgufType::kString, value}); }
void GgufKeys::boolean(const std::string& key, bool value) { set({key, GgufType::kBool, GgufType::kString, value}); }
void GgufKeys::u32s(const std::string& key, const std::vector<uint32_t>& values) { set(gguf_u32s(key, values)); }
void GgufKeys::erase(const std::string& key) {
  std::erase_if(entries_, [&](const GgufEntry& entry) { return entry.key == architecture_ + "." + key; });
}

GgufReader::GgufReader(const GgufFile& file) : file_(file), prefix_(file.need_string("general.architecture") + ".") {}

std::string GgufReader::name() const { return file_.path().filename().string(); }

int64_t GgufReader::need_int(const std::string& key, int64_t largest) const {
  const auto value = file_.need_int(prefix_ + key);
  if (value < 1 || value > largest) fail("models", "expected {}{} from 1 to {}, got {} ({})", prefix_, key, largest, value, name());
  return value;
}

int64_t GgufReader::int_or(const std::string& key, int64_t otherwise) const { return file_.get_int(prefix_ + key).value_or(otherwise); }
double GgufReader::need_float(const std::string& key) const { return file_.need_float(prefix_ + key); }
double GgufReader::float_or(const std::string& key, double otherwise) const { return file_.get_float(prefix_ + key).value_or(otherwise); }
std::string GgufReader::text_or(const std::string& key, const std::string& otherwise) const {
  return file_.get_string(prefix_ + key).value_or(otherwise);
}
std::vector<int64_t> GgufReader::ints(const std::string& key) const { return file_.get_ints(prefix_ + key); }
bool GgufReader::bool_or(const std::string& key, bool otherwise) const { return file_.get_bool(prefix_ + key).value_or(otherwise); }

}  // namespace graft
