#include <nlohmann/json.hpp>

#include "data/templates/jinja/value.h"

namespace graft::jinja {

Value from_json(Budget* budget, const nlohmann::ordered_json& json, int depth) {
  if (budget) budget->check_nesting(depth + 1);
  switch (json.type()) {
    case nlohmann::ordered_json::value_t::boolean: return Value::boolean(json.get<bool>());
    case nlohmann::ordered_json::value_t::number_integer: return Value::integer(json.get<int64_t>());
    case nlohmann::ordered_json::value_t::number_unsigned: return Value::integer(json.get<uint64_t>());
    case nlohmann::ordered_json::value_t::number_float: return Value::floating(json.get<double>());
    case nlohmann::ordered_json::value_t::string: return make_string(budget, json.get_ref<const std::string&>());
    case nlohmann::ordered_json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(from_json(budget, item, depth + 1));
      return make_list(budget, std::move(items));
    }
    case nlohmann::ordered_json::value_t::object: {
      std::vector<std::pair<Value, Value>> entries;
      entries.reserve(json.size());
      for (const auto& [key, value] : json.items()) {
        entries.emplace_back(make_string(budget, key), from_json(budget, value, depth + 1));
      }
      return make_dict(budget, std::move(entries));
    }
    default: return Value::none();
  }
}

}  // namespace graft::jinja
