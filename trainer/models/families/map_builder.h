// Adds the rules of one part of a layer or of the model to a WeightMap, under a family's names: what weight_map_of is made of.
#pragma once
#include <fmt/format.h>

#include "trainer/models/families/weight_names.h"

namespace graft {

class MapBuilder {
 public:
  explicit MapBuilder(const WeightNames& names) : names_(names) {}

  void model(const std::string& part, std::vector<int64_t> shape, bool bias = false) {
    const auto& name = names_.model.at(part);
    add(part, name.hub, name.gguf, std::move(shape), bias);
  }
  void layer(size_t index, const std::string& part, std::vector<int64_t> shape, bool bias = false) {
    const auto& name = names_.layer.at(part);
    add(fmt::format("layers.{}.{}", index, part), fmt::format("{}{}.{}", names_.hub_layers, index, name.hub),
        fmt::format("{}{}.{}", names_.gguf_layers, index, name.gguf), std::move(shape), bias);
  }
  // A weight of one expert: '*' of the hub name is its number. `stacked` is the hub's other layout, with `rows` rows of each expert from `first_row` on.
  void expert(size_t index, const std::string& part, int64_t number, int64_t num_experts, const std::vector<int64_t>& shape, const std::string& stacked, int64_t rows,
              int64_t first_row, bool bias) {
    const auto& name = names_.layer.at("experts." + part);
    const auto star = name.hub.find('*');
    const auto hub = fmt::format("{}{}.{}{}{}", names_.hub_layers, index, name.hub.substr(0, star), number, name.hub.substr(star + 1));
    const auto size = shape.at(0) * shape.at(1);
    WeightRule rule;
    rule.ours = fmt::format("layers.{}.experts.{}.{}.weight", index, number, part);
    rule.hub = hub + ".weight";
    rule.gguf = fmt::format("{}{}.{}.weight", names_.gguf_layers, index, name.gguf);
    rule.shape = shape;
    rule.gguf_form.whole = {num_experts, shape[0], shape[1]};
    rule.gguf_form.first = number * size;
    rule.hub_stacked = fmt::format("{}{}.{}", names_.hub_layers, index, names_.layer.at(stacked).hub);
    rule.hub_stacked_form.whole = {num_experts, rows, shape[1]};
    rule.hub_stacked_form.first = (number * rows + first_row) * shape[1];
    if (!bias) {
      map.rules.push_back(std::move(rule));
      return;
    }
    auto bias_rule = rule;
    for (auto* text : {&bias_rule.ours, &bias_rule.hub, &bias_rule.gguf}) text->replace(text->rfind(".weight"), 7, ".bias");
    bias_rule.shape = {shape[0]};
    bias_rule.gguf_form.whole = {num_experts, shape[0]};
    bias_rule.gguf_form.first = number * shape[0];
    map.rules.push_back(std::move(rule));
    map.rules.push_back(std::move(bias_rule));
  }
  // A vector with a name of its own, without .weight or .bias behind it.
  void vector(size_t index, const std::string& part, int64_t size) {
    const auto& name = names_.layer.at(part);
    WeightRule rule;
    rule.ours = fmt::format("layers.{}.{}", index, part);
    rule.hub = fmt::format("{}{}.{}", names_.hub_layers, index, name.hub);
    rule.gguf = fmt::format("{}{}.{}", names_.gguf_layers, index, name.gguf);
    rule.shape = {size};
    map.rules.push_back(std::move(rule));
  }
  // Rows of a matrix that files of one column or both hold as a part of a larger one, from row `first` on; where `whole_rows` is 0, alone.
  struct Place {
    std::string name;
    int64_t whole_rows = 0, first = 0;
  };
  WeightRule& slice(size_t index, const std::string& ours, std::vector<int64_t> shape, const Place& hub, const Place& gguf) {
    WeightRule rule;
    rule.ours = fmt::format("layers.{}.{}.weight", index, ours);
    rule.hub = fmt::format("{}{}.{}.weight", names_.hub_layers, index, hub.name);
    rule.gguf = fmt::format("{}{}.{}.weight", names_.gguf_layers, index, gguf.name);
    const auto place = [&](const Place& there, StoredForm& form) {
      if (there.whole_rows == 0) return;
      form.whole = {there.whole_rows, shape[1]};
      form.first = there.first * shape[1];
    };
    place(hub, rule.hub_form);
    place(gguf, rule.gguf_form);
    rule.shape = std::move(shape);
    map.rules.push_back(std::move(rule));
    return map.rules.back();
  }
  const PartName& name(const std::string& part) const { return names_.layer.at(part); }
  // Each head's rows of plain keys and of values: one matrix on the hub; GGUF has keys, transposed, and values in tensors of their own.
  void latent_heads(size_t index, const LatentAttentionSpec& attention) {
    const int64_t columns = attention.key_value_rank;
    const auto push = [&](const char* part, int64_t head, int64_t rows, int64_t first_row, bool transposed) {
      const auto& name = names_.layer.at(fmt::format("attention.key_value_b.{}", part));
      WeightRule rule;
      rule.ours = fmt::format("layers.{}.attention.key_value_b.{}.{}.weight", index, head, part);
      rule.hub = fmt::format("{}{}.{}.weight", names_.hub_layers, index, name.hub);
      rule.gguf = fmt::format("{}{}.{}.weight", names_.gguf_layers, index, name.gguf);
      rule.shape = {rows, columns};
      rule.hub_form.whole = {attention.num_heads * attention.key_value_size(), columns};
      rule.hub_form.first = (head * attention.key_value_size() + first_row) * columns;
      rule.gguf_form.whole = transposed ? std::vector<int64_t>{attention.num_heads, columns, rows} : std::vector<int64_t>{attention.num_heads, rows, columns};
      rule.gguf_form.first = head * rows * columns;
      rule.gguf_form.transposed = transposed;
      map.rules.push_back(std::move(rule));
    };
    for (int64_t head = 0; head < attention.num_heads; ++head) {
      push("key", head, attention.plain_size, 0, true);
      push("value", head, attention.value_size, attention.plain_size, false);
    }
  }
  WeightMap map;

 private:
  // A bias has one value a row.
  void add(const std::string& ours, const std::string& hub, const std::string& gguf, std::vector<int64_t> shape, bool bias) {
    const auto rows = shape.at(0);
    const auto push = [&](const std::string& kind, std::vector<int64_t> sizes) {
      WeightRule rule;
      rule.ours = ours + kind;
      rule.hub = hub + kind;
      rule.gguf = gguf + kind;
      rule.shape = std::move(sizes);
      map.rules.push_back(std::move(rule));
    };
    push(".weight", std::move(shape));
    if (bias) push(".bias", {rows});
  }
  const WeightNames& names_;
};

}  // namespace graft
