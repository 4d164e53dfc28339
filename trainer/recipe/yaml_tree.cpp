#include "trainer/recipe/yaml_tree.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <sstream>

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include "kernels/common/error.h"

namespace graft {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr size_t kMaxValues = 100'000;
constexpr size_t kMaxCharacters = 8 << 20;
constexpr size_t kMaxKeys = 1000;   // of one mapping: keys are compared one by one

bool is_decimal_integer(std::string_view text) {
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

// [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?   (YAML 1.2, section 10.3.2)
bool is_decimal_number(std::string_view text) {
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  const size_t exponent = text.find_first_of("eE");
  if (exponent != std::string_view::npos) {
    if (!is_decimal_integer(text.substr(exponent + 1))) return false;
    text = text.substr(0, exponent);
  }
  size_t digits = 0, dots = 0;
  for (const char character : text) {
    if (character == '.') ++dots;
    else if (character >= '0' && character <= '9') ++digits;
    else return false;
  }
  return digits > 0 && dots <= 1;
}

// Builds the tree from yaml-cpp's events and counts what it costs.
class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(std::string name) : name_(std::move(name)) {}

  YamlValue take_root() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { add(value_at(mark), anchor); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) problem(mark, "expected an alias of a finished value, got one that holds itself");
    YamlValue copy = found->second;
    copy.place = place_of(mark);
    count(copy, mark);
    add(std::move(copy), 0);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, const std::string& text) override {
    check_tag(mark, tag);
    YamlValue value = value_at(mark);
    value.kind = YamlValue::Kind::kScalar;
    value.text = text;
    value.quoted = tag == "!";
    characters_ += text.size();
    add(std::move(value), anchor);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlValue::Kind::kList);
  }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlValue::Kind::kMap);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapEnd() override { close(); }

 private:
  struct Open {
    YamlValue value;
    YAML::anchor_t anchor = 0;
    std::optional<std::pair<std::string, YamlPlace>> key;   // of a map, waiting for its value
    std::vector<YamlValue> merged;                          // values of `<<`
  };

  [[noreturn]] void problem(const YAML::Mark& mark, const std::string& text) const {
    fail("recipe", "{} ({}:{}:{})", text, name_, mark.line + 1, mark.column + 1);
  }
  static YamlPlace place_of(const YAML::Mark& mark) { return {mark.line + 1, mark.column + 1, nullptr}; }
  YamlValue value_at(const YAML::Mark& mark) {
    if (++values_ > kMaxValues || characters_ > kMaxCharacters) {
      problem(mark, fmt::format("expected at most {} values and {} MiB of text, got more once its aliases are expanded", kMaxValues,
                                kMaxCharacters >> 20));
    }
    YamlValue value;
    value.place = place_of(mark);
    return value;
  }
  void check_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (tag.empty() || tag == "!" || tag == "?") return;
    problem(mark, fmt::format("expected a value without a type tag, got the tag '{}' — remove it", tag));
  }
  void count(const YamlValue& value, const YAML::Mark& mark) {
    value_at(mark);
    characters_ += value.text.size();
    for (const YamlValue& item : value.items) count(item, mark);
    for (const YamlValue::Entry& entry : value.entries) {
      characters_ += entry.key.size();
      count(entry.value, mark);
    }
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YamlValue::Kind kind) {
    check_tag(mark, tag);
    if (!stack_.empty() && stack_.back().value.kind == YamlValue::Kind::kMap && !stack_.back().key) {
      problem(mark, "expected a text as key, got a list or mapping");
    }
    Open opened{value_at(mark), anchor, std::nullopt, {}};
    opened.value.kind = kind;
    stack_.push_back(std::move(opened));
  }
  void close() {
    Open closed = std::move(stack_.back());
    stack_.pop_back();
    // YAML's merge key: what the map itself says wins.
    for (const YamlValue& merged : closed.merged) {
      for (const YamlValue::Entry& entry : merged.entries) {
        if (!closed.value.find(entry.key)) closed.value.entries.push_back(entry);
      }
    }
    add(std::move(closed.value), closed.anchor);
  }

  void add(YamlValue value, YAML::anchor_t anchor) {
    const YAML::Mark mark = mark_of(value.place);
    if (anchor != 0) {
      count(value, mark);
      anchors_[anchor] = value;
    }
    if (stack_.empty()) {
      root_ = std::move(value);
      return;
    }
    Open& parent = stack_.back();
    if (parent.value.kind == YamlValue::Kind::kList) {
      parent.value.items.push_back(std::move(value));
    } else if (!parent.key) {
      if (value.kind != YamlValue::Kind::kScalar) problem(mark, "expected a text as key, got " + describe(value));
      parent.key = {value.text, value.place};
    } else {
      add_entry(parent, std::move(value), mark);
    }
  }
  void add_entry(Open& parent, YamlValue value, const YAML::Mark& mark) {
    auto [key, place] = *std::exchange(parent.key, std::nullopt);
    if (parent.value.entries.size() >= kMaxKeys) problem(mark, fmt::format("expected at most {} keys in a mapping, got more", kMaxKeys));
    if (key == "<<") {
      if (value.kind != YamlValue::Kind::kMap) problem(mark, "expected a mapping to merge with '<<', got " + describe(value));
      if (parent.merged.empty()) parent.merged.push_back(std::move(value));
      else problem(mark_of(place), "expected '<<' once, got it again — give one mapping to merge");
    } else if (const YamlValue* first = parent.value.find(key)) {
      problem(mark_of(place), fmt::format("expected each key once, got '{}' again (first on line {}) — remove one", key, first->place.line));
    } else {
      parent.value.entries.push_back({std::move(key), place, std::move(value)});
    }
  }
  static YAML::Mark mark_of(const YamlPlace& place) {
    YAML::Mark mark;
    mark.line = place.line - 1;
    mark.column = place.column - 1;
    return mark;
  }

  std::string name_;
  YamlValue root_;
  std::vector<Open> stack_;
  std::map<YAML::anchor_t, YamlValue> anchors_;
  size_t values_ = 0, characters_ = 0;
};

void set_places(YamlValue& value, const std::shared_ptr<const std::string>& override_text) {
  value.place.override_text = override_text;
  for (YamlValue& item : value.items) set_places(item, override_text);
  for (YamlValue::Entry& entry : value.entries) {
    entry.key_place.override_text = override_text;
    set_places(entry.value, override_text);
  }
}

}  // namespace

const YamlValue* YamlValue::find(std::string_view key) const {
  for (const Entry& entry : entries) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}

std::optional<bool> YamlValue::as_boolean() const {
  if (kind != Kind::kScalar || quoted) return std::nullopt;
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  return std::nullopt;
}

std::optional<int64_t> YamlValue::as_integer() const {
  if (kind != Kind::kScalar || quoted || text.empty()) return std::nullopt;
  int base = 10;
  std::string_view digits = text;
  if (text.starts_with("0x") || text.starts_with("0o")) {
    base = text[1] == 'x' ? 16 : 8;
    digits.remove_prefix(2);
    if (digits.starts_with('-')) return std::nullopt;
  } else if (!is_decimal_integer(text)) {
    return std::nullopt;
  } else if (digits[0] == '+') {
    digits.remove_prefix(1);
  }
  int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return value;
}

std::optional<double> YamlValue::as_number() const {
  if (const auto integer = as_integer()) return static_cast<double>(*integer);
  if (kind != Kind::kScalar || quoted || !is_decimal_number(text)) return std::nullopt;
  std::string_view digits = text;
  if (digits[0] == '+') digits.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || !std::isfinite(value)) return std::nullopt;
  return value;
}

YamlValue parse_yaml(const std::string& text, const std::string& name) {
  if (text.size() > kMaxFileBytes) {
    fail("recipe", "expected at most 1 MiB of YAML, got {} bytes ({}) — is this a recipe?", text.size(), name);
  }
  TreeBuilder builder(name);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    parser.HandleNextDocument(builder);
    YamlValue root = builder.take_root();
    if (root.place.line == 0) root.place = {1, 1, nullptr};   // an empty file
    TreeBuilder rest(name);
    if (parser.HandleNextDocument(rest)) fail("recipe", "expected one document, got a second one after '---' ({})", name);
    return root;
  } catch (const YAML::Exception& error) {
    fail("recipe", "expected YAML, got an error: {} ({}:{}:{})", error.msg, name, error.mark.line + 1, error.mark.column + 1);
  }
}

void apply_override(YamlValue& root, const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    fail("recipe", "expected --set key=value, got '{}' — for example --set optimizer.learning_rate=2e-4", text);
  }
  const auto origin = std::make_shared<const std::string>(text);
  YamlValue value = parse_yaml(text.substr(equals + 1), "--set " + text);
  set_places(value, origin);
  YamlValue* place = &root;
  std::string_view path = std::string_view(text).substr(0, equals);
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    const std::string key(path.substr(begin, end - begin));
    if (key.empty()) fail("recipe", "expected keys with single dots between them, got '{}' (--set {})", path, text);
    const bool is_position = is_decimal_integer(key) && key.size() <= 6 && key[0] != '-' && key[0] != '+';
    if (place->kind == YamlValue::Kind::kNull) place->kind = is_position ? YamlValue::Kind::kList : YamlValue::Kind::kMap;
    if (place->kind == YamlValue::Kind::kList) {
      const size_t position = is_position ? std::stoul(key) : SIZE_MAX;
      if (position > place->items.size()) {
        fail("recipe", "expected a position from 0 to {} after '{}', got '{}' (--set {})", place->items.size(),
             path.substr(0, begin == 0 ? 0 : begin - 1), key, text);
      }
      if (position == place->items.size()) place->items.push_back({.place = value.place});
      place = &place->items[position];
    } else if (place->kind == YamlValue::Kind::kMap) {
      auto entry = std::find_if(place->entries.begin(), place->entries.end(), [&](const auto& e) { return e.key == key; });
      if (entry == place->entries.end()) entry = place->entries.insert(entry, {key, value.place, {.place = value.place}});
      place = &entry->value;
    } else {
      fail("recipe", "expected '{}' to hold further keys, got {} (--set {})", path.substr(0, begin == 0 ? 0 : begin - 1), describe(*place),
           text);
    }
    begin = end + 1;
  }
  *place = std::move(value);
}

nlohmann::ordered_json yaml_to_json(const YamlValue& value) {
  switch (value.kind) {
    case YamlValue::Kind::kNull: return nullptr;
    case YamlValue::Kind::kScalar:
      if (const auto boolean = value.as_boolean()) return *boolean;
      if (const auto integer = value.as_integer()) return *integer;
      if (const auto number = value.as_number()) return *number;
      return value.text;
    case YamlValue::Kind::kList: {
      auto list = nlohmann::ordered_json::array();
      for (const YamlValue& item : value.items) list.push_back(yaml_to_json(item));
      return list;
    }
    case YamlValue::Kind::kMap: break;
  }
  auto map = nlohmann::ordered_json::object();
  for (const YamlValue::Entry& entry : value.entries) map[entry.key] = yaml_to_json(entry.value);
  return map;
}

std::string describe(const YamlValue& value) {
  switch (value.kind) {
    case YamlValue::Kind::kNull: return "nothing";
    case YamlValue::Kind::kScalar:
      if (value.text.size() > 60) {
        size_t cut = 57;
        while (cut > 0 && (value.text[cut] & 0xC0) == 0x80) --cut;   // not inside a UTF-8 character
        return fmt::format("'{}…'", value.text.substr(0, cut));
      }
      return value.quoted && value.text.empty() ? "an empty text" : fmt::format("'{}'", value.text);
    case YamlValue::Kind::kList: return fmt::format("a list of {}", value.items.size());
    case YamlValue::Kind::kMap: break;
  }
  return "a mapping";
}

}  // namespace graft
