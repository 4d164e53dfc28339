// How much each column of a weight counts: the mean square of what it is multiplied by. llama.cpp's file of it (GGUF, general.type "imatrix"): for each weight
// `<name>.in_sum2`, F32 [matrices, columns], sums of squares, and `<name>.counts`, F32 [matrices, 1], tokens. llama-imatrix writes such files, llama-quantize
// reads them.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

struct ImportanceMatrix {
  struct Entry {
    std::vector<float> sums;     // [matrices, columns]
    std::vector<float> counts;   // [matrices]; experts count their own tokens
    int64_t columns() const { return static_cast<int64_t>(sums.size() / counts.size()); }
  };
  std::map<std::string, Entry, std::less<>> entries;   // by the weight's name in GGUF files
  std::vector<std::string> datasets;                   // what the tokens came from
  uint32_t chunk_count = 0, chunk_size = 0;            // tokens came in so many chunks of so many

  // Means, matrix after matrix; an expert that saw no token has ones, as in llama-quantize. Empty where the weight has no entry.
  std::vector<float> importance_of(std::string_view weight) const;
};

// UserError (file and tensor): no importance matrix, sums without counts, sizes that do not fit, numbers that are negative or not finite.
ImportanceMatrix read_importance_matrix(const std::filesystem::path& path);
// MachineError on a full disk; no half file stays.
void write_importance_matrix(const ImportanceMatrix& matrix, const std::filesystem::path& path);

}  // namespace graft
