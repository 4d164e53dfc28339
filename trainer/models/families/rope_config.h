// Rotary embedding in config.json and in GGUF headers, both directions.
#pragma once
#include <nlohmann/json.hpp>

#include "checkpoints/gguf_file.h"
#include "trainer/models/decoder_spec.h"
#include "trainer/models/families/config_reader.h"
#include "trainer/models/families/gguf_keys.h"

namespace graft {

struct RopeDefaults {
  double theta = 10000;
  double partial_rotary_factor = 1;
  bool neighbouring_pairs = false;
};

// transformers 4 writes rope_theta and rope_scaling, transformers 5 rope_parameters; both together must agree. Scaling: default, linear, llama3,
// yarn, longrope (su); dynamic with alpha (Hunyuan): theta * alpha^(d/(d-2)).
RopeSpec read_rope(ConfigReader& reader, int64_t head_size, int64_t max_positions, const RopeDefaults& defaults = {});
// What YaRN multiplies cosines, sines or scores by: 0.1 * mscale * ln(factor) + 1.
double yarn_mscale(double factor, double mscale);
// One set of rope parameters that stands by itself.
RopeSpec read_rope_values(ConfigReader& reader, const char* key, const nlohmann::ordered_json& values, int64_t head_size, int64_t max_positions,
                          const RopeDefaults& defaults);
RopeSpec read_rope(const GgufFile& file, int64_t head_size, int64_t max_positions);

// rope_theta, rope_scaling and rope_parameters: old readers (mistralrs, transformers 4) want the first two, transformers 5 the last.
void write_rope(const RopeSpec& rope, int64_t head_size, nlohmann::ordered_json& config);
nlohmann::ordered_json rope_parameters(const RopeSpec& rope, int64_t head_size);
void write_rope(const RopeSpec& rope, GgufKeys& keys);

}  // namespace graft
