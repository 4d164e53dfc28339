#include "checkpoints/safetensors_writer.h"

#include <algorithm>
#include <array>
#include <stdexcept>

#include <nlohmann/json.hpp>

#include "checkpoints/quote.h"
#include "checkpoints/tensor_source.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

// The library's order of types, largest alignment first, so that every tensor is aligned to its type.
constexpr std::array kOrder = {TensorType::kI64,    TensorType::kF64, TensorType::kF32, TensorType::kI32,
                               TensorType::kBF16,   TensorType::kF16, TensorType::kI16, TensorType::kF8E4M3,
                               TensorType::kF8E5M2, TensorType::kI8,  TensorType::kU8,  TensorType::kBool};

uint64_t checked_bytes(const TensorDeclaration& tensor, const std::filesystem::path& file) {
  if (info(tensor.type).quantized)
    fail("checkpoints", "expected a type that safetensors has, got {} (tensor {}, {}) — write this type to GGUF",
         info(tensor.type).name, quote(tensor.name), file.string());
  const auto bytes = bytes_of(tensor.type, tensor.shape);
  if (!bytes)
    fail("checkpoints", "expected a shape that fits in memory, got too large a one (tensor {}, {}) — check the model",
         quote(tensor.name), file.string());
  return static_cast<uint64_t>(*bytes);
}

std::vector<TensorDeclaration> sorted_as_the_library_does(std::vector<TensorDeclaration> tensors) {
  const auto rank = [](const TensorDeclaration& tensor) { return std::ranges::find(kOrder, tensor.type) - kOrder.begin(); };
  std::ranges::sort(tensors,
                    [&](const auto& a, const auto& b) { return std::pair(rank(a), a.name) < std::pair(rank(b), b.name); });
  return tensors;
}

StreamedFile open_file(const std::filesystem::path& path, const std::vector<TensorDeclaration>& tensors,
                       const SafetensorsMetadata& metadata) {
  nlohmann::json metadata_json = metadata;
  // An ordered object written by hand: nlohmann's ordered_json searches linearly for each key.
  std::string header = metadata.empty() ? "{" : "{\"__metadata__\":" + metadata_json.dump();
  std::map<std::string, StreamedFile::Place, std::less<>> places;
  uint64_t end = 0;
  for (const TensorDeclaration& tensor : sorted_as_the_library_does(tensors)) {
    const uint64_t bytes = checked_bytes(tensor, path);
    if (tensor.name == "__metadata__" || !places.emplace(tensor.name, StreamedFile::Place{end, bytes}).second)
      fail("checkpoints", "expected every tensor name once and none called __metadata__, got {} ({}) — check the model",
           quote(tensor.name), path.string());
    header += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{},{}]}}", header.size() > 1 ? "," : "",
                          nlohmann::json(tensor.name).dump(), info(tensor.type).name, nlohmann::json(tensor.shape).dump(), end,
                          end + bytes);
    end += bytes;
  }
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const uint64_t length = header.size();
  header.insert(0, reinterpret_cast<const char*>(&length), sizeof length);
  for (auto& [name, place] : places) place.offset += header.size();
  return StreamedFile(path, header, std::move(places), header.size() + end);
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, const std::vector<TensorDeclaration>& tensors,
                                     const SafetensorsMetadata& metadata)
    : file_(open_file(path, tensors, metadata)) {}

SafetensorsDirectoryWriter::SafetensorsDirectoryWriter(const std::filesystem::path& directory,
                                                       const std::vector<TensorDeclaration>& tensors, uint64_t max_shard_bytes,
                                                       const SafetensorsMetadata& metadata)
    : directory_(directory) {
  std::vector<std::vector<TensorDeclaration>> shards(1);
  uint64_t shard_bytes = 0;
  for (const TensorDeclaration& tensor : tensors) {
    const uint64_t bytes = checked_bytes(tensor, directory);
    if (!shards.back().empty() && shard_bytes + bytes > max_shard_bytes) {
      shards.emplace_back();
      shard_bytes = 0;
    }
    if (!shard_of_.emplace(tensor.name, shards.size() - 1).second)
      fail("checkpoints", "expected every tensor name once, got {} twice ({}) — check the model", quote(tensor.name),
           directory.string());
    shards.back().push_back(tensor);
    shard_bytes += bytes;
    total_bytes_ += bytes;
  }
  make_private_directory(directory);
  for (size_t i = 0; i < shards.size(); ++i) {
    file_names_.push_back(shards.size() == 1 ? "model.safetensors"
                                             : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size()));
    shards_.emplace_back(directory / file_names_.back(), shards[i], metadata);
  }
}

void SafetensorsDirectoryWriter::write(std::string_view name, std::span<const std::byte> bytes) {
  const auto shard = shard_of_.find(name);
  if (shard == shard_of_.end())
    throw std::logic_error(fmt::format("tensor {} was not declared for {}", name, directory_.string()));
  shards_[shard->second].write(name, bytes);
}

void SafetensorsDirectoryWriter::finish() {
  for (SafetensorsWriter& shard : shards_) shard.finish();
  if (shards_.size() == 1) return;
  nlohmann::json weight_map = nlohmann::json::object();
  for (const auto& [name, shard] : shard_of_) weight_map[name] = file_names_[shard];
  nlohmann::ordered_json index = {{"metadata", {{"total_size", total_bytes_}}}, {"weight_map", std::move(weight_map)}};
  write_file_atomic(directory_ / "model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace graft
