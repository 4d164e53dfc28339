#include "checkpoints/gguf_file.h"

#include <algorithm>
#include <limits>
#include <unordered_map>

#include <fmt/ranges.h>

#include "checkpoints/gguf_header.h"
#include "checkpoints/mapped_file.h"
#include "checkpoints/quote.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

// name-00001-of-00003.gguf -> the paths of all three; `path` must be the first.
std::vector<std::filesystem::path> shard_paths(const std::filesystem::path& path, int64_t count) {
  const std::string name = path.filename().string();
  const std::string ending = fmt::format("-00001-of-{:05}.gguf", count);
  if (!name.ends_with(ending))
    fail("checkpoints",
         "expected the first shard, named ...{}, got {} (split.count is {}) — give the path of the first shard and keep the "
         "names",
         ending, path.string(), count);
  const std::string stem = name.substr(0, name.size() - ending.size());
  std::vector<std::filesystem::path> paths;
  for (int64_t i = 1; i <= count; ++i)
    paths.push_back(path.parent_path() / fmt::format("{}-{:05}-of-{:05}.gguf", stem, i, count));
  return paths;
}

void check_all_shards_exist(const std::vector<std::filesystem::path>& paths) {
  std::vector<std::string> missing;
  for (const auto& path : paths)
    if (!std::filesystem::exists(path)) missing.push_back(path.filename().string());
  if (!missing.empty())
    fail("checkpoints", "expected {} shards beside {}, {} missing: {} — copy all shards into one folder", paths.size(),
         paths.front().string(), missing.size(),
         fmt::join(missing.begin(), missing.begin() + std::min<size_t>(missing.size(), 20), ", "));
}

const GgufEntry* find_entry(const std::vector<GgufEntry>& metadata, std::string_view key) {
  const auto found = std::ranges::find(metadata, key, &GgufEntry::key);
  return found == metadata.end() ? nullptr : &*found;
}

std::string kind_of(const GgufEntry& entry) {
  if (entry.type == GgufType::kArray) return fmt::format("an array of {}", gguf_type_name(entry.element_type));
  return gguf_type_name(entry.type);
}

[[noreturn]] void fail_kind(const std::filesystem::path& file, const GgufEntry& entry, std::string_view expected) {
  fail("checkpoints",
       "expected {} for the metadata key {}, got {} ({}) — the file was converted by a faulty program; convert it again",
       expected, quote(entry.key), kind_of(entry), file.string());
}

int64_t to_int(const std::filesystem::path& file, const GgufEntry& entry) {
  if (const auto* value = std::get_if<int64_t>(&entry.value)) return *value;
  const auto* value = std::get_if<uint64_t>(&entry.value);
  if (value == nullptr) fail_kind(file, entry, "an integer");
  if (*value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) fail_kind(file, entry, "an integer below 2^63");
  return static_cast<int64_t>(*value);
}

}  // namespace

struct GgufFile::Impl {
  std::vector<MappedFile> shards;
  std::unordered_map<std::string_view, const GgufEntry*> by_key;  // into metadata_, which no longer changes
};

const GgufEntry* find_entry(std::span<const GgufEntry> metadata, std::string_view key) {
  const auto found = std::find_if(metadata.begin(), metadata.end(), [&](const GgufEntry& entry) { return entry.key == key; });
  return found == metadata.end() ? nullptr : &*found;
}

GgufFile::GgufFile(const std::filesystem::path& path) : impl_(std::make_unique<Impl>()), path_(path) {
  const auto open_shard = [&](const std::filesystem::path& shard) {
    impl_->shards.emplace_back(shard);
    files_.push_back(shard);
    return parse_gguf_header(impl_->shards.back().bytes(), shard);
  };
  GgufHeader first = open_shard(path);
  metadata_ = std::move(first.metadata);
  tensors_ = std::move(first.tensors);
  for (const GgufEntry& entry : metadata_) impl_->by_key.emplace(entry.key, &entry);

  const int64_t count = get_int("split.count").value_or(0);
  if (count < 0 || count > 65535)
    fail("checkpoints", "expected split.count from 0 to 65535, got {} ({}) — the file is damaged; copy it again", count,
         path.string());
  if (count > 1) {
    const auto paths = shard_paths(path, count);
    check_all_shards_exist(paths);
    for (int64_t i = 1; i < count; ++i) {
      GgufHeader shard = open_shard(paths[i]);
      const GgufEntry* number = find_entry(shard.metadata, "split.no");
      if (number == nullptr || to_int(paths[i], *number) != i)
        fail("checkpoints",
             "expected split.no {}, got {} ({}) — shards of different models or names that were changed; copy them again", i,
             number == nullptr ? "none" : std::to_string(to_int(paths[i], *number)), paths[i].string());
      std::ranges::move(shard.tensors, std::back_inserter(tensors_));
    }
    if (const auto total = get_int("split.tensors.count"); total && *total != static_cast<int64_t>(tensors_.size()))
      fail("checkpoints", "expected {} tensors in {} shards, got {} ({}) — shards of different models; copy them again", *total,
           count, tensors_.size(), path.string());
  }
  index_tensors();
}

GgufFile::~GgufFile() = default;

void GgufFile::forget(std::span<const std::byte> bytes) const {
  for (const MappedFile& shard : impl_->shards) shard.forget(bytes);
}

const GgufEntry* GgufFile::find_key(std::string_view key) const {
  const auto found = impl_->by_key.find(key);
  return found == impl_->by_key.end() ? nullptr : found->second;
}

std::optional<std::string> GgufFile::get_string(std::string_view key) const {
  const GgufEntry* entry = find_key(key);
  if (entry == nullptr) return std::nullopt;
  if (const auto* value = std::get_if<std::string>(&entry->value)) return *value;
  fail_kind(path_, *entry, "a string");
}

std::optional<int64_t> GgufFile::get_int(std::string_view key) const {
  const GgufEntry* entry = find_key(key);
  if (entry == nullptr) return std::nullopt;
  return to_int(path_, *entry);
}

std::optional<double> GgufFile::get_float(std::string_view key) const {
  const GgufEntry* entry = find_key(key);
  if (entry == nullptr) return std::nullopt;
  if (const auto* value = std::get_if<double>(&entry->value)) return *value;
  fail_kind(path_, *entry, "a floating-point number");
}

std::optional<bool> GgufFile::get_bool(std::string_view key) const {
  const GgufEntry* entry = find_key(key);
  if (entry == nullptr) return std::nullopt;
  if (const auto* value = std::get_if<bool>(&entry->value)) return *value;
  fail_kind(path_, *entry, "a boolean");
}

const std::vector<std::string>* GgufFile::get_strings(std::string_view key) const {
  const GgufEntry* entry = find_key(key);
  if (entry == nullptr) return nullptr;
  if (const auto* value = std::get_if<std::vector<std::string>>(&entry->value)) return value;
  fail_kind(path_, *entry, "an array of strings");
}

std::vector<int64_t> GgufFile::get_ints(std::string_view key) const {
  const GgufEntry* entry = find_key(key);
  if (entry == nullptr) return {};
  if (const auto* values = std::get_if<std::vector<int64_t>>(&entry->value)) return *values;
  const auto* values = std::get_if<std::vector<uint64_t>>(&entry->value);
  if (values == nullptr) fail_kind(path_, *entry, "an array of integers");
  if (std::ranges::any_of(*values, [](uint64_t value) { return value >> 63 != 0; }))
    fail_kind(path_, *entry, "an array of integers below 2^63");
  return {values->begin(), values->end()};
}

std::vector<double> GgufFile::get_floats(std::string_view key) const {
  const GgufEntry* entry = find_key(key);
  if (entry == nullptr) return {};
  if (const auto* values = std::get_if<std::vector<double>>(&entry->value)) return *values;
  fail_kind(path_, *entry, "an array of floating-point numbers");
}

namespace {

[[noreturn]] void fail_absent(const std::filesystem::path& file, std::string_view key) {
  fail("checkpoints", "expected the metadata key {}, got none ({}) — this file is not a complete model; convert it again",
       quote(key), file.string());
}

}  // namespace

std::string GgufFile::need_string(std::string_view key) const {
  if (auto value = get_string(key)) return *std::move(value);
  fail_absent(path_, key);
}

int64_t GgufFile::need_int(std::string_view key) const {
  if (const auto value = get_int(key)) return *value;
  fail_absent(path_, key);
}

double GgufFile::need_float(std::string_view key) const {
  if (const auto value = get_float(key)) return *value;
  fail_absent(path_, key);
}

}  // namespace graft
