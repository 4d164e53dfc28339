#include "trainer/exports/export_result.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

namespace graft {
namespace {

bool is_coarse(TensorType type) {   // below 8 bits a weight
  const auto& layout = info(type);
  return layout.quantized && layout.block_bytes * 8 < layout.block_elements * 8;
}

}  // namespace

std::string describe_types(const std::vector<ExportedTensor>& tensors) {
  std::vector<std::pair<std::string_view, int>> counts;
  for (const auto& tensor : tensors) {
    const auto name = info(tensor.type).name;
    const auto found = std::find_if(counts.begin(), counts.end(), [&](const auto& count) { return count.first == name; });
    if (found == counts.end()) {
      counts.emplace_back(name, 1);
    } else {
      ++found->second;
    }
  }
  std::stable_sort(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string text;
  for (const auto& [name, count] : counts) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, count);
  return text;
}

std::string own_grid_warning(const std::vector<ExportedTensor>& tensors) {
  std::map<std::string_view, int> on_own_grid;
  int adapted = 0, same = 0;
  for (const auto& tensor : tensors) {
    adapted += tensor.adapted;
    if (!tensor.adapted || tensor.stored != tensor.type || !is_coarse(tensor.type)) continue;
    ++same;
    ++on_own_grid[info(tensor.type).name];
  }
  if (2 * same <= adapted) return {};
  const auto most = std::max_element(on_own_grid.begin(), on_own_grid.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  return fmt::format(
      "{} of {} adapted tensors go back onto the {} grid that the base already lies on: rounding returns most weights to the base's and "
      "erases the fine-tune — export gguf:Q8_0 or gguf:F16, or gguf-lora beside the original base file; these keep it — or train through this rounding (adapter.quantization_aware)",
      same, adapted, most->first);
}

}  // namespace graft
