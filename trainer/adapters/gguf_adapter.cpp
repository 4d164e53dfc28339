#include "trainer/adapters/gguf_adapter.h"

#include <algorithm>
#include <map>

#include "checkpoints/gguf_file.h"
#include "kernels/common/error.h"
#include "kernels/quantized/dequantize.h"
#include "trainer/models/families/family.h"

namespace graft {
namespace {

std::vector<float> values_of(const StoredTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
  dequantize(tensor.type, tensor.bytes.data(), tensor.num_elements(), values.data());
  return values;
}

// The file's tensors of one matrix, or of one matrix of all experts: A [experts, rank, in], B [experts, out, rank].
struct StoredFactors {
  const StoredTensor *a = nullptr, *b = nullptr;
  int64_t rank() const { return a->shape.at(a->shape.size() - 2); }
};

class LoraFile {
 public:
  explicit LoraFile(const std::filesystem::path& path) : file_(path), name_(path.filename().string()) {}
  const GgufFile& gguf() const { return file_; }
  const std::string& name() const { return name_; }

  StoredFactors factors(const std::string& weight) const {
    StoredFactors factors{file_.find(weight + ".lora_a"), file_.find(weight + ".lora_b")};
    if (!factors.a || !factors.b || factors.a->shape.size() < 2) fail("adapters", "expected {0}.lora_a and {0}.lora_b, got one of them or another shape ({1})", weight, name_);
    return factors;
  }

  // The names of a linear's parts in the file: of experts' gate and up, or of parts that are one tensor there or several.
  static std::vector<std::string> parts_of(const std::vector<const WeightRule*>& rules, int64_t parts) {
    std::vector<std::string> names;
    for (int64_t part = 0; part < parts; ++part) names.push_back(rules[static_cast<size_t>(part)]->gguf);
    return names;
  }

  // gate and up may have an A of their own each, where ours is one for both: then ranks lie beside each other.
  bool shares_a(const std::vector<std::string>& parts) const {
    const auto first = values_of(*factors(parts[0]).a);
    return std::all_of(parts.begin() + 1, parts.end(), [&](const std::string& part) { return values_of(*factors(part).a) == first; });
  }
  int64_t rank_of(const std::vector<std::string>& parts) const {
    if (shares_a(parts)) return factors(parts[0]).rank();
    int64_t rank = 0;
    for (const auto& part : parts) rank += factors(part).rank();
    return rank;
  }

 private:
  GgufFile file_;
  std::string name_;
};

// llama.cpp scales each tensor by alpha over its own rank, an AdapterSet by alpha over base_rank: B makes up for it.
void copy_factors(const LoraFile& file, const Adapter& adapter, int64_t base_rank, float* a, float* b) {
  const auto parts = LoraFile::parts_of(adapter.rules, adapter.parts);
  const bool shared = file.shares_a(parts);
  int64_t first_rank = 0, first_row = 0;
  for (int64_t part = 0; part < adapter.parts; ++part) {
    const auto stored = file.factors(parts[static_cast<size_t>(part)]);
    const auto& rule = *adapter.rules[static_cast<size_t>(part)];
    const int64_t rank = stored.rank(), rows = rule.shape.at(0);
    const auto& form = rule.gguf_form;
    const bool is_slice = !adapter.is_bank && form.whole.size() == 2;   // other parts have the tensor's other rows
    const int64_t rows_there = is_slice ? form.whole[0] : rows, first_there = is_slice ? form.first / rule.shape.at(1) : 0;
    auto shape_a = std::vector<int64_t>{rank, adapter.inputs}, shape_b = std::vector<int64_t>{rows_there, rank};
    if (adapter.is_bank) {
      shape_a.insert(shape_a.begin(), adapter.num_experts);
      shape_b.insert(shape_b.begin(), adapter.num_experts);
    }
    if (stored.a->shape != shape_a || stored.b->shape != shape_b) {
      fail("adapters", "expected {0}.lora_a [{1}{2}, {3}] and .lora_b [{1}{4}, {2}], got others ({5})", rule.gguf,
           adapter.is_bank ? fmt::format("{}, ", adapter.num_experts) : "", rank, adapter.inputs, rows_there, file.name());
    }
    const auto a_values = values_of(*stored.a), b_values = values_of(*stored.b);
    const auto order = stored_row_of_ours(rule, NameColumn::kGguf), columns = stored_column_of_ours(rule, NameColumn::kGguf);
    for (int64_t expert = 0; expert < adapter.num_experts; ++expert) {
      std::copy_n(a_values.data() + expert * rank * adapter.inputs, rank * adapter.inputs, a + (expert * adapter.rank + first_rank) * adapter.inputs);
      for (int64_t r = 0; !columns.empty() && r < rank; ++r) {
        for (size_t c = 0; c < columns.size(); ++c) a[(first_rank + r) * adapter.inputs + static_cast<int64_t>(c)] = a_values[static_cast<size_t>(r * adapter.inputs + columns[c])];
      }
      for (int64_t row = 0; row < rows; ++row) {
        const auto* source = b_values.data() + (expert * rows + first_there + (order.empty() ? row : order[static_cast<size_t>(row)])) * rank;
        float* target = b + (expert * adapter.outputs + first_row + row) * adapter.rank + first_rank;
        for (int64_t r = 0; r < rank; ++r) target[r] = rank == base_rank ? source[r] : source[r] * static_cast<float>(base_rank) / static_cast<float>(rank);
      }
    }
    if (!shared) first_rank += rank;
    first_row += rows;
  }
}

}  // namespace

std::unique_ptr<AdapterSet> load_gguf_adapter(Decoder& decoder, const std::filesystem::path& path) {
  const LoraFile file(path);
  const auto& gguf = file.gguf();
  const auto architecture = family_of_model_type(decoder.spec().family).gguf_architecture;
  if (gguf.get_string("general.type").value_or("") != "adapter" || gguf.get_string("adapter.type").value_or("") != "lora" ||
      gguf.get_string("general.architecture").value_or("") != architecture) {
    fail("adapters", "expected a GGUF LoRA for architecture {}, got another file ({})", architecture, file.name());
  }
  std::map<std::string, const Linear*> linear_of_tensor;
  for (const auto* linear : decoder.linears()) {
    if (!linear->rules.front()->gguf_lora) continue;   // llama.cpp reads the file and leaves them out
    for (const auto& part : LoraFile::parts_of(linear->rules, linear->parts())) linear_of_tensor[part] = linear;
  }
  AdapterOptions options;
  options.targets.clear();
  options.rank = 0;
  for (const auto& tensor : gguf.tensors()) {
    const bool is_a = tensor.name.ends_with(".lora_a");
    if (!is_a && !tensor.name.ends_with(".lora_b")) fail("adapters", "expected only lora_a and lora_b tensors, got {} ({})", tensor.name, file.name());
    const auto found = linear_of_tensor.find(tensor.name.substr(0, tensor.name.size() - 7));
    if (found == linear_of_tensor.end()) fail("adapters", "expected tensors of the base model's linear layers, got {} ({})", tensor.name, file.name());
    const auto& linear = *found->second;
    if (!is_a || std::find(options.targets.begin(), options.targets.end(), linear.module_name) != options.targets.end()) continue;
    options.targets.push_back(linear.module_name);
    const auto parts = LoraFile::parts_of(linear.rules, linear.parts());
    const auto rank = file.rank_of(parts);
    if (options.rank == 0) options.rank = file.factors(parts[0]).rank();
    if (rank != options.rank) options.ranks[linear.module_name] = rank;
  }
  if (options.targets.empty()) fail("adapters", "expected at least one lora_a tensor, got none ({})", file.name());
  const double alpha = gguf.get_float("adapter.lora.alpha").value_or(0);
  options.alpha = alpha == 0 ? static_cast<double>(options.rank) : alpha;
  auto adapters = std::make_unique<AdapterSet>(decoder, options, 0);
  auto* values = adapters->parameters.data_ptr<float>();
  for (const auto& adapter : adapters->adapters()) copy_factors(file, adapter, options.rank, values + adapter.offset_a, values + adapter.offset_b);
  return adapters;
}

}  // namespace graft
