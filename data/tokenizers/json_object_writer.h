#pragma once
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

namespace graft {

// ordered_json's own insertion looks for the key first, which is quadratic for a vocabulary.
class ObjectWriter {
 public:
  void add(const std::string& key, nlohmann::ordered_json value) { static_cast<Container&>(object_).emplace_back(key, std::move(value)); }
  nlohmann::ordered_json take() { return nlohmann::ordered_json(std::move(object_)); }

 private:
  using Object = nlohmann::ordered_json::object_t;
  using Container = Object::Container;
  Object object_;
};

}  // namespace graft
