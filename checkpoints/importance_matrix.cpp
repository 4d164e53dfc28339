#include "checkpoints/importance_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "checkpoints/gguf_file.h"
#include "checkpoints/gguf_writer.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

constexpr std::string_view kSums = ".in_sum2", kCounts = ".counts";
constexpr const char* kType = "general.type";

std::string place(const StoredTensor& tensor) { return tensor.name + ", " + tensor.file.filename().string(); }

std::vector<float> numbers_of(const StoredTensor& tensor) {
  if (tensor.type != TensorType::kF32) fail("checkpoints", "expected sums and counts of an importance matrix in F32, got {} ({}) — make the file again", info(tensor.type).name, place(tensor));
  std::vector<float> numbers(static_cast<size_t>(tensor.num_elements()));
  std::memcpy(numbers.data(), tensor.bytes.data(), numbers.size() * sizeof(float));
  for (size_t i = 0; i < numbers.size(); ++i)
    if (!(numbers[i] >= 0 && std::isfinite(numbers[i])))
      fail("checkpoints", "expected sums of squares and counts, finite and not negative, got {} at {} ({}) — make the file again", numbers[i], i, place(tensor));
  return numbers;
}

}  // namespace

std::vector<float> ImportanceMatrix::importance_of(std::string_view weight) const {
  const auto found = entries.find(weight);
  if (found == entries.end()) return {};
  const Entry& entry = found->second;
  std::vector<float> importance(entry.sums.size(), 1.0f);
  const auto columns = static_cast<size_t>(entry.columns());
  for (size_t i = 0; i < importance.size(); ++i)
    if (const float count = entry.counts[i / columns]; count > 0) importance[i] = entry.sums[i] / count;
  return importance;
}

ImportanceMatrix read_importance_matrix(const std::filesystem::path& path) {
  const GgufFile file(path);
  if (const auto type = file.get_string(kType).value_or("none"); type != "imatrix")
    fail("checkpoints", "expected an importance matrix ({} \"imatrix\"), got \"{}\" ({}) — llama-imatrix writes one, and graft with importance: training_rows", kType, type,
         path.filename().string());
  ImportanceMatrix matrix;
  if (const auto* datasets = file.get_strings("imatrix.datasets")) matrix.datasets = *datasets;
  matrix.chunk_count = static_cast<uint32_t>(file.get_int("imatrix.chunk_count").value_or(0));
  matrix.chunk_size = static_cast<uint32_t>(file.get_int("imatrix.chunk_size").value_or(0));
  for (const StoredTensor& tensor : file.tensors()) {
    const bool is_sums = tensor.name.ends_with(kSums);
    if (!is_sums && !tensor.name.ends_with(kCounts)) fail("checkpoints", "expected names that end in {} or {}, got {} — make the file again", kSums, kCounts, place(tensor));
    auto& entry = matrix.entries[tensor.name.substr(0, tensor.name.size() - (is_sums ? kSums : kCounts).size())];
    (is_sums ? entry.sums : entry.counts) = numbers_of(tensor);
  }
  for (const auto& [name, entry] : matrix.entries) {
    if (entry.counts.empty() || entry.sums.empty() || entry.sums.size() % entry.counts.size() != 0)
      fail("checkpoints", "expected counts for each matrix of {} and sums for each of its columns, got {} counts and {} sums ({}) — the file is damaged", name,
           entry.counts.size(), entry.sums.size(), path.filename().string());
  }
  if (matrix.entries.empty()) fail("checkpoints", "expected sums of squares of some weight, got none ({}) — make the file again", path.filename().string());
  return matrix;
}

void write_importance_matrix(const ImportanceMatrix& matrix, const std::filesystem::path& path) {
  std::vector<TensorDeclaration> declarations;
  for (const auto& [name, entry] : matrix.entries) {
    const auto count = static_cast<int64_t>(entry.counts.size());
    declarations.push_back({name + std::string(kSums), TensorType::kF32, {count, entry.columns()}});
    declarations.push_back({name + std::string(kCounts), TensorType::kF32, {count, 1}});
  }
  GgufWriter writer(path, {gguf_string(kType, "imatrix"), gguf_strings("imatrix.datasets", matrix.datasets), gguf_u32("imatrix.chunk_count", matrix.chunk_count),
                           gguf_u32("imatrix.chunk_size", matrix.chunk_size)}, declarations);
  for (const auto& [name, entry] : matrix.entries) {
    writer.write(name + std::string(kSums), std::as_bytes(std::span(entry.sums)));
    writer.write(name + std::string(kCounts), std::as_bytes(std::span(entry.counts)));
  }
  writer.finish();
}

}  // namespace graft
