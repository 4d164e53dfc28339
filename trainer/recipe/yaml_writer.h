// JSON as YAML that people read: block style, plain scalars where they stay texts, literal blocks for several lines.
#pragma once
#include <string>

#include <nlohmann/json.hpp>

namespace graft {

// parse_yaml reads the result back to the same value (yaml_tree.h).
std::string write_yaml(const nlohmann::ordered_json& value);

}  // namespace graft
