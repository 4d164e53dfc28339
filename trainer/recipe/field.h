// One table of fields describes a struct of the recipe: from it a recipe is read, checked, printed and documented (recipe_schema.cpp).
// A Field<Object> binds a YAML key to a member of Object by three functions; the builders below make the usual ones.
#pragma once
#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/ranges.h>

#include "trainer/recipe/reader.h"
#include "trainer/recipe/yaml_writer.h"

namespace graft {

using Json = nlohmann::ordered_json;

// How paths are written: relative to the folder that will hold the text.
using PathWriter = std::function<Json(const std::string& path, bool of_working_directory)>;

struct DocumentedKey {
  std::string key, type, fallback, doc;   // fallback: the default as YAML, or "required"
};

template <typename Object>
struct Field {
  std::string key, type, doc;
  bool required = false;
  std::function<void(Reader&, const YamlValue&, Object&)> read;
  std::function<Json(const Object&, const PathWriter&)> print;
  std::function<std::vector<DocumentedKey>()> inner;   // of sections and lists: their keys
};

template <typename Object>
using Table = std::vector<Field<Object>>;

template <typename Object>
Field<Object> required(Field<Object> field) {
  field.required = true;
  return field;
}

template <typename Object>
void read_table(Reader& reader, const YamlValue& value, Object& object, const Table<Object>& table) {
  if (!reader.expect_map(value)) return;
  for (const YamlValue::Entry& entry : value.entries) {
    const auto field = std::find_if(table.begin(), table.end(), [&](const auto& candidate) { return candidate.key == entry.key; });
    if (field == table.end()) {
      std::vector<std::string> keys;
      for (const auto& candidate : table) keys.push_back(candidate.key);
      reader.unknown_key(entry, keys);
      continue;
    }
    Reader::Inside inside(reader, entry.key);
    field->read(reader, entry.value, object);
  }
  for (const auto& field : table) {
    if (field.required && !value.find(field.key)) reader.missing_key(value.place, field.key, field.type);
  }
}

template <typename Object>
Json print_table(const Object& object, const Table<Object>& table, const PathWriter& write_path) {
  Json printed = Json::object();
  for (const auto& field : table) printed[field.key] = field.print(object, write_path);
  return printed;
}

template <typename Object>
std::vector<DocumentedKey> document_table(const Table<Object>& table, const Object& defaults = {}) {
  std::vector<DocumentedKey> keys;
  const PathWriter plain = [](const std::string& path, bool) { return Json(path); };
  for (const auto& field : table) {
    const std::string fallback = field.required ? "required" : field.inner ? "" : write_yaml(field.print(defaults, plain));
    keys.push_back({field.key, field.type, fallback.substr(0, fallback.find('\n')), field.doc});
    if (!field.inner) continue;
    for (DocumentedKey inner : field.inner()) {
      inner.key = field.key + "." + inner.key;
      keys.push_back(inner);
    }
  }
  return keys;
}

// ---- builders --------------------------------------------------------------------------------------------------------------------

template <typename Object>
Field<Object> integer(std::string key, int64_t Object::*member, Range range, std::string doc) {
  return {key, "integer " + range.text(), doc, false,
          [=](Reader& reader, const YamlValue& value, Object& object) {
            if (const auto read = reader.integer(value, range)) object.*member = *read;
          },
          [=](const Object& object, const PathWriter&) -> Json { return object.*member; }};
}

template <typename Object>
Field<Object> number(std::string key, double Object::*member, Range range, std::string doc) {
  return {key, "number " + range.text(), doc, false,
          [=](Reader& reader, const YamlValue& value, Object& object) {
            if (const auto read = reader.number(value, range)) object.*member = *read;
          },
          [=](const Object& object, const PathWriter&) -> Json { return object.*member; }};
}

inline bool is_word(const YamlValue& value, const std::string& word) {
  return (value.kind == YamlValue::Kind::kScalar && value.text == word) || (value.kind == YamlValue::Kind::kNull && word == "null");
}
inline Json word_json(const std::string& word) { return word == "null" ? Json(nullptr) : Json(word); }

// `word` (auto, null) stands for "not given".
template <typename Object>
Field<Object> integer_or(std::string key, std::string word, std::optional<int64_t> Object::*member, Range range, std::string doc) {
  return {key, word + " or integer " + range.text(), doc, false,
          [=](Reader& reader, const YamlValue& value, Object& object) {
            if (is_word(value, word)) object.*member = std::nullopt;
            else if (const auto read = reader.integer(value, range, word + " or ")) object.*member = *read;
          },
          [=](const Object& object, const PathWriter&) { return object.*member ? Json(*(object.*member)) : word_json(word); }};
}

template <typename Object>
Field<Object> number_or(std::string key, std::string word, std::optional<double> Object::*member, Range range, std::string doc) {
  return {key, word + " or number " + range.text(), doc, false,
          [=](Reader& reader, const YamlValue& value, Object& object) {
            if (is_word(value, word)) object.*member = std::nullopt;
            else if (const auto read = reader.number(value, range, word + " or ")) object.*member = *read;
          },
          [=](const Object& object, const PathWriter&) { return object.*member ? Json(*(object.*member)) : word_json(word); }};
}

template <typename Object>
Field<Object> boolean(std::string key, bool Object::*member, std::string doc) {
  return {key, "true or false", doc, false,
          [=](Reader& reader, const YamlValue& value, Object& object) {
            if (const auto read = reader.boolean(value)) object.*member = *read;
          },
          [=](const Object& object, const PathWriter&) -> Json { return object.*member; }};
}

template <typename Object>
Field<Object> choice(std::string key, std::string Object::*member, std::vector<std::string> allowed, std::string doc) {
  return {key, fmt::format("{}", fmt::join(allowed, ", ")), doc, false,
          [=](Reader& reader, const YamlValue& value, Object& object) {
            if (const auto read = reader.choice(value, allowed)) object.*member = *read;
          },
          [=](const Object& object, const PathWriter&) -> Json { return object.*member; }};
}

// A text that `check` accepts; `type` says what that is.
template <typename Object>
Field<Object> text(std::string key, std::string type, std::string Object::*member, std::function<bool(const std::string&)> check,
                   std::string doc) {
  return {key, type, doc, false,
          [=](Reader& reader, const YamlValue& value, Object& object) {
            if (value.kind != YamlValue::Kind::kScalar || !check(value.text)) reader.expected(value, type);
            else object.*member = value.text;
          },
          [=](const Object& object, const PathWriter&) -> Json { return object.*member; }};
}

template <typename Object>
Field<Object> optional_text(std::string key, std::string type, std::optional<std::string> Object::*member, std::string doc) {
  return {key, type, doc, false,
          [=](Reader& reader, const YamlValue& value, Object& object) {
            if (value.kind == YamlValue::Kind::kNull) object.*member = std::nullopt;
            else object.*member = reader.text(value);
          },
          [=](const Object& object, const PathWriter&) { return object.*member ? Json(*(object.*member)) : Json(nullptr); }};
}

// of_working_directory: run.out and run.cache. `words`: texts that are no paths (data.template: base).
template <typename Object>
Field<Object> path(std::string key, std::string Object::*member, std::string doc, bool of_working_directory = false,
                   std::vector<std::string> words = {}) {
  return {key, words.empty() ? "path" : fmt::format("{} or path", fmt::join(words, ", ")), doc, false,
          [=](Reader& reader, const YamlValue& value, Object& object) {
            for (const auto& word : words) {
              if (is_word(value, word)) {
                object.*member = word;
                return;
              }
            }
            if (const auto read = reader.path(value, of_working_directory)) object.*member = *read;
          },
          [=](const Object& object, const PathWriter& write_path) {
            const bool is_text = std::find(words.begin(), words.end(), object.*member) != words.end();
            return is_text ? Json(object.*member) : write_path(object.*member, of_working_directory);
          }};
}

template <typename Object>
Field<Object> optional_path(std::string key, std::optional<std::string> Object::*member, std::string doc,
                            bool of_working_directory = false) {
  return {key, "null or path", doc, false,
          [=](Reader& reader, const YamlValue& value, Object& object) {
            if (value.kind == YamlValue::Kind::kNull) object.*member = std::nullopt;
            else object.*member = reader.path(value, of_working_directory);
          },
          [=](const Object& object, const PathWriter& write_path) {
            return object.*member ? write_path(*(object.*member), of_working_directory) : Json(nullptr);
          }};
}

template <typename Object, typename Inner>
Field<Object> section(std::string key, Inner Object::*member, Table<Inner> table, std::string doc) {
  return {key, "mapping", doc, false,
          [=](Reader& reader, const YamlValue& value, Object& object) { read_table(reader, value, object.*member, table); },
          [=](const Object& object, const PathWriter& write_path) { return print_table(object.*member, table, write_path); },
          [=] { return document_table(table); }};
}

// Keys below one key that are members of the same struct: keep: {last, best}.
template <typename Object>
Field<Object> group(std::string key, Table<Object> table, std::string doc) {
  return {key, "mapping", doc, false,
          [=](Reader& reader, const YamlValue& value, Object& object) { read_table(reader, value, object, table); },
          [=](const Object& object, const PathWriter& write_path) { return print_table(object, table, write_path); },
          [=] { return document_table(table); }};
}

template <typename Object, typename Item>
Field<Object> list(std::string key, std::vector<Item> Object::*member, Table<Item> table, bool document_items, std::string doc) {
  Field<Object> field{key, "list of mappings", doc, false,
                      [=](Reader& reader, const YamlValue& value, Object& object) {
                        if (!reader.expect_list(value)) return;
                        (object.*member).clear();
                        for (size_t i = 0; i < value.items.size(); ++i) {
                          Reader::Inside inside(reader, std::to_string(i));
                          read_table(reader, value.items[i], (object.*member).emplace_back(), table);
                        }
                      },
                      [=](const Object& object, const PathWriter& write_path) {
                        Json printed = Json::array();
                        for (const Item& item : object.*member) {
                          Json entry = print_table(item, table, write_path);
                          for (auto key = entry.begin(); key != entry.end();) key = key->is_null() ? entry.erase(key) : std::next(key);
                          printed.push_back(std::move(entry));
                        }
                        return printed;
                      }};
  if (document_items) {
    field.inner = [=] {
      auto keys = document_table(table);
      for (DocumentedKey& inner : keys) inner.key = "0." + inner.key;   // as --set addresses the first entry
      return keys;
    };
  }
  return field;
}

}  // namespace graft
