#include "trainer/models/families/rope_config.h"

#include <cmath>
#include <cstring>
#include <set>

#include "kernels/common/error.h"

namespace graft {

using nlohmann::ordered_json;

namespace {

std::vector<double> factors_of(ConfigReader& reader, const char* key, const ordered_json& values, const char* name, int64_t pairs) {
  std::vector<double> factors;
  if (values.contains(name) && values[name].is_array()) {
    for (const auto& value : values[name]) factors.push_back(value.is_number() ? value.get<double>() : 0.0);
  }
  bool good = static_cast<int64_t>(factors.size()) == pairs;
  for (const auto factor : factors) good = good && factor > 0;
  if (!good) reader.wrong(key, fmt::format("{} with {} positive numbers", name, pairs));
  return good ? factors : std::vector<double>(static_cast<size_t>(pairs), 1.0);
}

bool is_one_of(const std::string& text, std::initializer_list<const char*> choices) {
  for (const auto* choice : choices) {
    if (text == choice) return true;
  }
  return false;
}

std::vector<float> float_tensor(const GgufFile& file, const char* name, int64_t size) {
  const auto* tensor = file.find(name);
  if (!tensor) return {};
  if (tensor->type != TensorType::kF32 || tensor->num_elements() != size) {
    fail("models", "expected {} to hold {} float32 values, got others ({})", name, size, file.path().filename().string());
  }
  std::vector<float> values(static_cast<size_t>(size));
  std::memcpy(values.data(), tensor->bytes.data(), tensor->bytes.size());
  return values;
}

}  // namespace

double yarn_mscale(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1; }

RopeSpec read_rope_values(ConfigReader& reader, const char* key, const ordered_json& values, int64_t head_size, int64_t max_positions,
                          const RopeDefaults& defaults) {
  static const std::set<std::string> kKnown = {"rope_type", "type", "rope_theta", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings",
                                               "partial_rotary_factor", "beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate",
                                               "short_factor", "long_factor", "alpha", "llama_4_scaling_beta", "max_position_embeddings",
                                               "mrope_section", "mrope_interleaved"};   // of images: a text's three positions are one
  for (const auto& [name, value] : values.items()) {
    // Hunyuan's files carry YaRN's numbers beside "dynamic" and alpha: transformers reads none of them.
    if (!kKnown.contains(name)) reader.wrong(key, "no key " + name);
  }
  const auto number = [&](const char* name, double otherwise) {
    if (!values.contains(name) || values[name].is_null()) return otherwise;
    if (values[name].is_number()) return values[name].get<double>();
    reader.wrong(key, std::string("a number for ") + name);
    return otherwise;
  };
  RopeSpec rope;
  rope.neighbouring_pairs = defaults.neighbouring_pairs;
  rope.rotary_size = static_cast<int64_t>(static_cast<double>(head_size) * number("partial_rotary_factor", defaults.partial_rotary_factor));
  if (rope.rotary_size < 2 || rope.rotary_size % 2 != 0 || rope.rotary_size > head_size) {
    reader.wrong("partial_rotary_factor", fmt::format("an even part of a head's {} elements", head_size));
    rope.rotary_size = 2;
  }
  rope.theta = number("rope_theta", defaults.theta);
  std::string type = "default";
  for (const char* name : {"type", "rope_type"}) {
    if (values.contains(name) && values[name].is_string()) type = values[name].get<std::string>();
  }
  rope.factor = number("factor", 1);
  rope.original_max_positions = number("original_max_position_embeddings", type == "llama3" ? 8192 : static_cast<double>(max_positions));
  rope.query_temperature = number("llama_4_scaling_beta", 0);
  if (type == "linear") {
    rope.scaling = RopeSpec::Scaling::kLinear;
  } else if (type == "llama3") {
    rope.scaling = RopeSpec::Scaling::kLlama3;
    rope.low_frequency_factor = number("low_freq_factor", 1);
    rope.high_frequency_factor = number("high_freq_factor", 4);
  } else if (type == "yarn") {
    rope.scaling = RopeSpec::Scaling::kYarn;
    rope.beta_fast = number("beta_fast", 32);
    rope.beta_slow = number("beta_slow", 1);
    const double mscale = number("mscale", 0), all = number("mscale_all_dim", 0);
    rope.attention_factor =
        number("attention_factor", mscale != 0 && all != 0 ? yarn_mscale(rope.factor, mscale) / yarn_mscale(rope.factor, all) : yarn_mscale(rope.factor, 1));
    rope.mscale = mscale;
    rope.mscale_all_dim = all;
    rope.truncate = !values.contains("truncate") || values["truncate"] != false;
  } else if (is_one_of(type, {"longrope", "su"})) {
    rope.scaling = RopeSpec::Scaling::kLongRope;
    rope.factor = number("factor", static_cast<double>(max_positions) / rope.original_max_positions);
    rope.attention_factor = number("attention_factor", rope.factor <= 1 ? 1 : std::sqrt(1 + std::log(rope.factor) / std::log(rope.original_max_positions)));
    rope.short_factors = factors_of(reader, key, values, "short_factor", rope.rotary_size / 2);
    rope.long_factors = factors_of(reader, key, values, "long_factor", rope.rotary_size / 2);
  } else if (type == "dynamic" && number("alpha", 0) > 0) {
    rope.factor = 1;
    rope.theta *= std::pow(number("alpha", 1), static_cast<double>(head_size) / static_cast<double>(head_size - 2));
  } else if (type != "default") {
    reader.wrong(key, "rope type default, linear, llama3, yarn, longrope, or dynamic with alpha");
  }
  if (!(rope.theta > 0) || !(rope.factor > 0) || !(rope.original_max_positions > 0)) reader.wrong(key, "positive numbers");
  return rope;
}

RopeSpec read_rope(ConfigReader& reader, int64_t head_size, int64_t max_positions, const RopeDefaults& defaults) {
  reader.ignore({"rope_parameters", "rope_scaling"});
  ordered_json values = ordered_json::object();
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!reader.has(key)) continue;
    const auto& found = reader.at(key);
    if (!found.is_object()) {
      reader.wrong(key, "an object");
      continue;
    }
    for (const auto& [name, value] : found.items()) {
      if (values.contains(name) && values[name] != value) reader.wrong(key, "the same " + name + " in rope_scaling and rope_parameters");
      values[name] = value;
    }
  }
  auto own = defaults;
  own.theta = reader.float_or("rope_theta", defaults.theta);
  own.partial_rotary_factor = reader.float_or("partial_rotary_factor", defaults.partial_rotary_factor);
  // Phi writes it beside the scaling.
  if (reader.has("original_max_position_embeddings") && !values.contains("original_max_position_embeddings")) {
    values["original_max_position_embeddings"] = reader.need_float("original_max_position_embeddings");
  }
  reader.ignore({"original_max_position_embeddings"});
  return read_rope_values(reader, reader.has("rope_parameters") ? "rope_parameters" : "rope_scaling", values, head_size, max_positions, own);
}

RopeSpec read_rope(const GgufFile& file, int64_t head_size, int64_t max_positions) {
  const GgufReader reader(file);
  RopeSpec rope;
  rope.rotary_size = reader.int_or("rope.dimension_count", head_size);
  if (rope.rotary_size < 2 || rope.rotary_size > head_size || rope.rotary_size % 2 != 0) {
    fail("models", "expected rope.dimension_count to be an even number up to {}, got {} ({})", head_size, rope.rotary_size, reader.name());
  }
  rope.theta = reader.float_or("rope.freq_base", 10000);
  rope.original_max_positions = static_cast<double>(reader.int_or("rope.scaling.original_context_length", max_positions));
  const auto scaling = reader.text_or("rope.scaling.type", "none");
  const int64_t pairs = rope.rotary_size / 2;
  if (scaling == "linear") {
    rope.scaling = RopeSpec::Scaling::kLinear;
    rope.factor = reader.need_float("rope.scaling.factor");
  } else if (scaling == "yarn") {
    rope.scaling = RopeSpec::Scaling::kYarn;
    rope.factor = reader.need_float("rope.scaling.factor");
    rope.beta_fast = reader.float_or("rope.scaling.yarn_beta_fast", 32);
    rope.beta_slow = reader.float_or("rope.scaling.yarn_beta_slow", 1);
    rope.attention_factor = yarn_mscale(rope.factor, 1) * reader.float_or("rope.scaling.attn_factor", 1);
  } else if (!is_one_of(scaling, {"none", "longrope"})) {
    fail("models", "expected rope.scaling.type none, linear, yarn or longrope, got {} ({})", scaling, reader.name());
  }
  rope.frequency_divisors = float_tensor(file, "rope_freqs.weight", pairs);   // llama3 scaling, worked out by the converter
  const auto long_factors = float_tensor(file, "rope_factors_long.weight", pairs), short_factors = float_tensor(file, "rope_factors_short.weight", pairs);
  rope.long_factors.assign(long_factors.begin(), long_factors.end());
  rope.short_factors.assign(short_factors.begin(), short_factors.end());
  if (!rope.long_factors.empty()) {
    if (rope.short_factors.empty()) fail("models", "expected rope_factors_short.weight beside rope_factors_long.weight, got none ({})", reader.name());
    rope.scaling = RopeSpec::Scaling::kLongRope;
    rope.factor = static_cast<double>(max_positions) / rope.original_max_positions;
    rope.attention_factor = reader.float_or("rope.scaling.attn_factor", 1);
  }
  return rope;
}

ordered_json rope_parameters(const RopeSpec& rope, int64_t head_size) {
  ordered_json values = {{"rope_theta", rope.theta}, {"rope_type", "default"}};
  const auto original = static_cast<int64_t>(rope.original_max_positions);
  switch (rope.scaling) {
    case RopeSpec::Scaling::kNone:
      break;
    case RopeSpec::Scaling::kLinear:
      values["rope_type"] = "linear";
      values["factor"] = rope.factor;
      break;
    case RopeSpec::Scaling::kLlama3:
      values["rope_type"] = "llama3";
      values["factor"] = rope.factor;
      values["low_freq_factor"] = rope.low_frequency_factor;
      values["high_freq_factor"] = rope.high_frequency_factor;
      values["original_max_position_embeddings"] = original;
      break;
    case RopeSpec::Scaling::kYarn:
      values["rope_type"] = "yarn";
      values["factor"] = rope.factor;
      values["beta_fast"] = rope.beta_fast;
      if (!rope.truncate) values["truncate"] = false;
      values["beta_slow"] = rope.beta_slow;
      values["attention_factor"] = rope.attention_factor;
      if (rope.mscale != 0) values["mscale"] = rope.mscale;
      if (rope.mscale_all_dim != 0) values["mscale_all_dim"] = rope.mscale_all_dim;
      values["original_max_position_embeddings"] = original;
      break;
    case RopeSpec::Scaling::kLongRope:
      values["rope_type"] = "longrope";
      values["factor"] = rope.factor;
      values["attention_factor"] = rope.attention_factor;
      values["short_factor"] = rope.short_factors;
      values["long_factor"] = rope.long_factors;
      values["original_max_position_embeddings"] = original;
      break;
  }
  if (rope.rotary_size != head_size) values["partial_rotary_factor"] = static_cast<double>(rope.rotary_size) / static_cast<double>(head_size);
  return values;
}

void write_rope(const RopeSpec& rope, int64_t head_size, ordered_json& config) {
  const auto parameters = rope_parameters(rope, head_size);
  config["rope_theta"] = rope.theta;
  if (parameters.contains("partial_rotary_factor")) config["partial_rotary_factor"] = parameters["partial_rotary_factor"];
  if (rope.scaling != RopeSpec::Scaling::kNone) {
    auto scaling = parameters;
    scaling.erase("rope_theta");
    scaling.erase("partial_rotary_factor");
    config["rope_scaling"] = scaling;
  }
  config["rope_parameters"] = parameters;
}

void write_rope(const RopeSpec& rope, GgufKeys& keys) {
  keys.f32("rope.freq_base", rope.theta);
  keys.u32("rope.dimension_count", rope.rotary_size);
  switch (rope.scaling) {
    case RopeSpec::Scaling::kNone:
    case RopeSpec::Scaling::kLlama3:   // the tensor rope_freqs.weight
      break;
    case RopeSpec::Scaling::kLinear:
      keys.text("rope.scaling.type", "linear");
      keys.f32("rope.scaling.factor", rope.factor);
      break;
    case RopeSpec::Scaling::kYarn:
      keys.text("rope.scaling.type", "yarn");
      keys.f32("rope.scaling.factor", rope.factor);
      keys.u32("rope.scaling.original_context_length", static_cast<int64_t>(rope.original_max_positions));
      if (rope.beta_fast != 32) keys.f32("rope.scaling.yarn_beta_fast", rope.beta_fast);
      if (rope.beta_slow != 1) keys.f32("rope.scaling.yarn_beta_slow", rope.beta_slow);
      // llama.cpp multiplies with 0.1 ln(factor) + 1 by itself.
      if (const double rest = rope.attention_factor / yarn_mscale(rope.factor, 1); std::abs(rest - 1) > 1e-9) keys.f32("rope.scaling.attn_factor", rest);
      break;
    case RopeSpec::Scaling::kLongRope:   // and the tensors rope_factors_long.weight, rope_factors_short.weight
      keys.u32("rope.scaling.original_context_length", static_cast<int64_t>(rope.original_max_positions));
      keys.f32("rope.scaling.attn_factor", rope.attention_factor);
      break;
  }
}

}  // namespace graft
