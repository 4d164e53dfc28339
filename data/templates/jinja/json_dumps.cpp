// json.dumps with Python's defaults, as the tojson filter of transformers calls it.
#include <algorithm>
#include <cmath>

#include "data/templates/jinja/operators.h"
#include "data/templates/jinja/python_text.h"
#include "data/templates/jinja/repr.h"

namespace graft::jinja {
namespace {

class Dumper {
 public:
  Dumper(Budget& budget, const JsonStyle& style) : budget_(budget), style_(style) {}

  std::string dump(const Value& value) {
    append(value, 0);
    budget_.check_text(out_.size());
    return std::move(out_);
  }

 private:
  void append(const Value& value, int level) {
    budget_.pay();
    budget_.check_text(out_.size());
    switch (value.kind()) {
      case Kind::kNone: out_ += "null"; break;
      case Kind::kBool: out_ += value.as_bool() ? "true" : "false"; break;
      case Kind::kInteger: out_ += integer_text(value.as_integer()); break;
      case Kind::kFloat: out_ += number(value.as_float()); break;
      case Kind::kString: append_string(value.text()); break;
      case Kind::kList:
      case Kind::kTuple: append_list(value.items(), level); break;
      case Kind::kDict: append_dict(value.dict(), level); break;
      default: raise_python("TypeError", "Object of type " + type_name(value) + " is not JSON serializable");
    }
  }

  static std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return float_text(value);
  }

  void append_string(std::string_view text) {
    budget_.pay_for_text(text.size());
    out_ += '"';
    for (size_t position = 0; position < text.size();) {
      const size_t begin = position;
      const char32_t c = decode_code_point(text, position);
      switch (c) {
        case '"': out_ += "\\\""; break;
        case '\\': out_ += "\\\\"; break;
        case '\b': out_ += "\\b"; break;
        case '\f': out_ += "\\f"; break;
        case '\n': out_ += "\\n"; break;
        case '\r': out_ += "\\r"; break;
        case '\t': out_ += "\\t"; break;
        default:
          if (c >= 0x20 && (c < 0x7F || !style_.ensure_ascii)) {
            out_ += text.substr(begin, position - begin);
          } else if (c == 0x7F) {
            out_ += '\x7F';
          } else if (c >= 0x10000) {  // as a surrogate pair
            const uint32_t offset = static_cast<uint32_t>(c) - 0x10000;
            out_ += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (offset >> 10), 0xDC00 + (offset & 0x3FF));
          } else {
            out_ += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
          }
      }
    }
    out_ += '"';
  }

  void new_line(int level) {
    if (!style_.indent) return;
    out_ += '\n';
    for (int i = 0; i < level; ++i) {
      out_ += *style_.indent;
      budget_.check_text(out_.size());
    }
  }

  void append_list(const std::vector<Value>& items, int level) {
    if (items.empty()) {
      out_ += "[]";
      return;
    }
    out_ += '[';
    for (size_t i = 0; i < items.size(); ++i) {
      if (i) out_ += style_.item_separator;
      new_line(level + 1);
      append(items[i], level + 1);
    }
    new_line(level);
    out_ += ']';
  }

  std::string key_text(const Value& key) {
    switch (key.kind()) {
      case Kind::kString: return key.text();
      case Kind::kBool: return key.as_bool() ? "true" : "false";
      case Kind::kInteger: return integer_text(key.as_integer());
      case Kind::kFloat: return number(key.as_float());
      case Kind::kNone: return "null";
      default: raise_python("TypeError", "keys must be str, int, float, bool or None, not " + type_name(key));
    }
  }

  void append_dict(const DictObject& dict, int level) {
    if (dict.entries.empty()) {
      out_ += "{}";
      return;
    }
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [&](const auto* a, const auto* b) { return less(budget_, a->first, b->first); });
    }
    out_ += '{';
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i) out_ += style_.item_separator;
      new_line(level + 1);
      append_string(key_text(entries[i]->first));
      out_ += style_.key_separator;
      append(entries[i]->second, level + 1);
    }
    new_line(level);
    out_ += '}';
  }

  Budget& budget_;
  const JsonStyle& style_;
  std::string out_;
};

}  // namespace

std::string json_dumps(Budget& budget, const Value& value, const JsonStyle& style) { return Dumper(budget, style).dump(value); }

}  // namespace graft::jinja
