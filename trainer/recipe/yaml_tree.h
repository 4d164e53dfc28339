// A YAML document as plain values that know where they stand: the form in which a recipe is overridden and checked.
//
// yaml-cpp scans and parses; this tree is built from its events, because YAML::Node hides duplicate keys, shares nodes between aliases
// (an override would change both) and expands alias bombs. Here an alias is a bounded copy, `<<: *name` merges, and a repeated key is an
// error. Scalars are read by YAML 1.2's core schema: 2e-4 is a number, only true and false are booleans, `no` and `on` are texts.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace graft {

// Where a value was written: line and column (from 1) of the file, or of the text of a --set.
struct YamlPlace {
  int line = 0, column = 0;
  std::shared_ptr<const std::string> override_text;   // null: in the file
};

struct YamlValue {
  enum class Kind { kNull, kScalar, kList, kMap };
  struct Entry;

  Kind kind = Kind::kNull;
  std::string text;               // kScalar: its characters
  bool quoted = false;            // kScalar: a text, whatever it looks like
  std::vector<YamlValue> items;   // kList
  std::vector<Entry> entries;     // kMap, in the order of the file
  YamlPlace place;

  const YamlValue* find(std::string_view key) const;

  // The scalar as YAML 1.2's core schema reads it; nothing when it is not of that type (or is quoted).
  std::optional<bool> as_boolean() const;
  std::optional<int64_t> as_integer() const;   // decimal, 0x and 0o; nothing beyond 64 bits
  std::optional<double> as_number() const;     // finite decimal numbers, integers included
};

struct YamlValue::Entry {
  std::string key;
  YamlPlace key_place;
  YamlValue value;
};

// Parses one document. `name` appears in errors. At most 1 MiB of text, 100,000 values and 8 MiB of characters after aliases are expanded,
// and yaml-cpp's 500 levels; no tags. Throws UserError with name:line:column.
YamlValue parse_yaml(const std::string& text, const std::string& name);

// Applies one "a.b.0.c=value": the value is YAML, numbers are positions in lists (the first free one appends), missing maps and lists are made.
// Throws UserError when the text has no '=', the path leads through a scalar, or a position is out of reach.
void apply_override(YamlValue& root, const std::string& text);

// The value as JSON, scalars by the core schema.
nlohmann::ordered_json yaml_to_json(const YamlValue& value);

// "'text'", "a list of 3", "a mapping", "nothing": for errors.
std::string describe(const YamlValue& value);

}  // namespace graft
