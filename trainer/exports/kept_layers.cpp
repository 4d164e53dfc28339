#include "trainer/exports/kept_layers.h"

#include <algorithm>
#include <charconv>

#include "kernels/common/error.h"
#include "trainer/models/families/family.h"

namespace graft {

namespace {

constexpr std::string_view kLayers = "layers.";

[[noreturn]] void no_layers(std::string_view text) {
  fail("exports", "expected layers such as 0-4,10,28-29, counted from 0 and ascending, or best:15, got '{}'", text);
}

void cut_layers_of(nlohmann::ordered_json& config, int64_t num_layers, const std::vector<int64_t>& layers) {
  for (auto& [key, value] : config.items()) {
    if (value.is_number_integer() && value == num_layers && (key == "num_hidden_layers" || key == "num_layers" || key == "n_layer" || key == "n_layers")) value = layers.size();
    if (!value.is_array() || static_cast<int64_t>(value.size()) != num_layers || key.find("layer") == std::string::npos) continue;
    auto left = nlohmann::ordered_json::array();
    for (const auto layer : layers) left.push_back(value[static_cast<size_t>(layer)]);
    value = std::move(left);
  }
}

// In the keys that the family's own configurations have; the size of a head stands there, where it can.
void write_widths(nlohmann::ordered_json& config, const DecoderSpec& spec) {
  const auto made = config_from_spec(spec);
  for (const char* key : {"hidden_size", "n_embd", "intermediate_size", "ffn_hidden_size", "n_inner", "num_attention_heads", "n_head", "num_key_value_heads", "multi_query_attention",
                          "multi_query_group_num", "head_dim", "kv_channels"}) {
    if (made.contains(key)) config[key] = made[key];
  }
  const auto heads = spec.attention_layer().heads();
  if (!made.contains("kv_channels") && spec.hidden_size != heads.num_heads * heads.size) config["head_dim"] = heads.size;
}

// What the family reads from a configuration in place of this model; empty: this one.
std::string read_instead(const nlohmann::ordered_json& config, const DecoderSpec& spec) {
  try {
    return config_from_spec(family_of_model_type(spec.family).spec_from_config(config)) == config_from_spec(spec) ? "" : "another model from it";
  } catch (const UserError& error) {
    return fmt::format("an error ({})", error.what());
  }
}

}  // namespace

LayerName layer_name(std::string_view ours) {
  if (!ours.starts_with(kLayers)) return {};
  const auto digits = ours.substr(kLayers.size());
  LayerName name;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), name.layer);
  if (error != std::errc()) return {};
  name.rest = digits.substr(static_cast<size_t>(end - digits.data()));
  return name;
}

std::optional<int64_t> counted_layers(std::string_view text) {
  constexpr std::string_view kBest = "best:";
  if (!text.starts_with(kBest)) return std::nullopt;
  int64_t count = 0;
  const auto [stop, error] = std::from_chars(text.data() + kBest.size(), text.data() + text.size(), count);
  if (error != std::errc() || stop != text.data() + text.size() || count < 1) no_layers(text);
  return count;
}

std::vector<int64_t> parse_layers(std::string_view text) {
  std::vector<int64_t> layers;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const auto part = text.substr(begin, end - begin);
    const size_t dash = std::min(part.find('-'), part.size());
    const auto number = [&](std::string_view digits) {
      int64_t value = -1;
      const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
      if (error != std::errc() || stop != digits.data() + digits.size() || value < 0 || value > 100000) no_layers(text);
      return value;
    };
    const int64_t first = number(part.substr(0, dash)), last = dash == part.size() ? first : number(part.substr(dash + 1));
    if (last < first || (!layers.empty() && first <= layers.back())) no_layers(text);
    for (int64_t layer = first; layer <= last; ++layer) layers.push_back(layer);
    begin = end + 1;
  }
  return layers;
}

PartialModel keep_layers(const DecoderSpec& spec, const std::vector<BoundWeight>& weights, const std::vector<int64_t>& layers) {
  const auto num_layers = static_cast<int64_t>(spec.layers.size());
  if (layers.empty() || layers.back() >= num_layers) fail("exports", "expected layers of 0 to {}, got {}", num_layers - 1, layers.empty() ? "none" : std::to_string(layers.back()));
  PartialModel kept{spec, {}, {}, {}};
  kept.spec.layers.clear();
  for (const auto layer : layers) kept.spec.layers.push_back(spec.layers[static_cast<size_t>(layer)]);
  check_spec(kept.spec);
  kept.map = family_of_model_type(spec.family).weight_map(kept.spec);
  std::map<std::string, const BoundWeight*> stored;
  for (const auto& weight : weights) stored[weight.rule->ours] = &weight;
  for (const auto& rule : kept.map.rules) {
    const auto name = layer_name(rule.ours);
    const auto found = stored.find(name.layer < 0 ? rule.ours : fmt::format("{}{}{}", kLayers, layers.at(static_cast<size_t>(name.layer)), name.rest));
    if (found == stored.end() || found->second->rule->shape != rule.shape) fail("exports", "expected {} to be cut by layers, got no such weight of the whole model: {}", spec.family, rule.ours);
    kept.weights.push_back(*found->second);
    kept.weights.back().rule = &rule;
    kept.rules[found->second->rule] = &rule;
  }
  return kept;
}

void cut_config(nlohmann::ordered_json& config, const ExportSource& source) {
  if (!source.kept_layers.empty()) cut_layers_of(config, source.base_layers, source.kept_layers);
  if (!source.cuts.empty()) write_widths(config, *source.spec);
  const auto got = read_instead(config, *source.spec);
  if (got.empty()) return;
  fail("exports", "expected config.json to be able to say which layers are left, and how wide, got {} — in {} the kind of a layer may follow from its position, and the size of a head from "
       "the hidden width: keep layers so that each stays of the kind of its new place, and of hidden width and heads the same share", got, source.spec->family);
}

}  // namespace graft
