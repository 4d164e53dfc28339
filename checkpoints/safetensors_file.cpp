#include "checkpoints/safetensors_file.h"

#include <algorithm>
#include <set>

#include <fmt/ranges.h>

#include "checkpoints/mapped_file.h"
#include "checkpoints/quote.h"
#include "checkpoints/strict_json.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

constexpr const char* kSingleName = "model.safetensors";
constexpr const char* kIndexName = "model.safetensors.index.json";

// tensor name -> file name, as the index says.
std::map<std::string, std::string> read_index(const std::filesystem::path& index) {
  const MappedFile mapped(index);
  const std::string_view text(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size());
  const auto json = parse_strict_json(text, index, "the index", 8);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object() || json["weight_map"].empty())
    fail("checkpoints",
         "expected an object with a \"weight_map\" from tensors to files, got none ({}) — the file is damaged; copy it again",
         index.string());
  std::map<std::string, std::string> files;
  for (const auto& [name, file] : json["weight_map"].items()) {
    // Only plain names: an index must not reach files outside its directory.
    const bool plain = file.is_string() &&
                       std::filesystem::path(file.get<std::string>()).filename() == file.get<std::string>() &&
                       file.get<std::string>().ends_with(".safetensors");
    if (!plain)
      fail("checkpoints",
           "expected the name of a .safetensors file in the same folder, got {} (tensor {}, {}) — the index is damaged; copy "
           "it again",
           quote(file.dump()), quote(name), index.string());
    files.emplace(name, file.get<std::string>());
  }
  return files;
}

[[noreturn]] void fail_with_all(const std::vector<std::string>& problems, const std::filesystem::path& index) {
  const size_t shown = std::min<size_t>(problems.size(), 20);
  fail("checkpoints",
       "expected shards and tensors as the index lists them, got {} differences: {}{} ({}) — copy the whole directory again",
       problems.size(), fmt::join(problems.begin(), problems.begin() + static_cast<std::ptrdiff_t>(shown), "; "),
       problems.size() > shown ? "; and more" : "", index.string());
}

}  // namespace

struct SafetensorsFile::Impl {
  std::vector<MappedFile> files;
};

SafetensorsFile::SafetensorsFile(const std::filesystem::path& file_or_directory) : impl_(std::make_unique<Impl>()) {
  const auto open_file = [&](const std::filesystem::path& file) {
    impl_->files.emplace_back(file);
    files_.push_back(file);
    SafetensorsHeader header = parse_safetensors_header(impl_->files.back().bytes(), file);
    if (impl_->files.size() == 1) metadata_ = std::move(header.metadata);
    std::ranges::move(header.tensors, std::back_inserter(tensors_));
  };
  const bool directory = std::filesystem::is_directory(file_or_directory);
  const auto index = file_or_directory / kIndexName;
  if (!directory || std::filesystem::exists(file_or_directory / kSingleName)) {
    open_file(directory ? file_or_directory / kSingleName : file_or_directory);
    index_tensors();
    return;
  }

  const auto file_of = read_index(index);
  std::set<std::string> shards;
  for (const auto& [name, file] : file_of) shards.insert(file);
  std::vector<std::string> problems;
  for (const std::string& shard : shards) {
    if (std::filesystem::exists(file_or_directory / shard))
      open_file(file_or_directory / shard);
    else
      problems.push_back(fmt::format("shard {} is missing", quote(shard)));
  }
  std::map<std::string_view, std::vector<std::string>> found;  // tensor -> the shards that hold it
  for (const StoredTensor& tensor : tensors_) found[tensor.name].push_back(tensor.file.filename().string());
  for (const auto& [name, file] : file_of) {
    if (!std::filesystem::exists(file_or_directory / file)) continue;  // reported as a shard
    if (!found.contains(name)) problems.push_back(fmt::format("tensor {} is not in {}", quote(name), quote(file)));
  }
  for (const auto& [name, holders] : found) {
    const auto listed = file_of.find(std::string(name));
    if (listed == file_of.end())
      problems.push_back(fmt::format("tensor {} of {} is not in the index", quote(name), quote(holders.front())));
    else if (holders.size() > 1)
      problems.push_back(fmt::format("tensor {} is in {}", quote(name), fmt::join(holders, " and in ")));
    else if (holders.front() != listed->second)
      problems.push_back(
          fmt::format("tensor {} is in {}, not in {}", quote(name), quote(holders.front()), quote(listed->second)));
  }
  if (!problems.empty()) fail_with_all(problems, index);
  index_tensors();
}

SafetensorsFile::~SafetensorsFile() = default;

void SafetensorsFile::forget(std::span<const std::byte> bytes) const {
  for (const MappedFile& file : impl_->files) file.forget(bytes);
}

}  // namespace graft
