// Filters that take or make text.
#include "data/templates/jinja/arguments.h"
#include "data/templates/jinja/filters.h"
#include "data/templates/jinja/operators.h"
#include "data/templates/jinja/python_text.h"
#include "data/templates/jinja/repr.h"

namespace graft::jinja {
namespace {

// Jinja's soft_str: text stays what it is, markup included; anything else becomes its str().
Value soft_string(Renderer& renderer, const Value& value) {
  return value.is(Kind::kString) ? value : renderer.string(renderer.text_of(value));
}

void no_arguments(const char* name, CallArguments& arguments) { Parameters(name, arguments, {}); }

template <std::string (*kConvert)(std::string_view)>
Value convert(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  no_arguments("filter", arguments);
  const Value text = soft_string(renderer, subject);
  renderer.budget().pay_for_text(16 * text.text().size());
  return renderer.string(kConvert(text.text()), text.is_markup());
}

// Jinja's own title: each word's first letter upper, the rest lower; words begin after blanks and -({[<.
Value title_filter(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  no_arguments("title", arguments);
  const std::string text = renderer.text_of(subject);
  renderer.budget().pay_for_text(16 * text.size());
  std::string result, word;
  const auto flush = [&] {
    if (word.empty()) return;
    size_t first = 0;
    decode_code_point(word, first);
    result += upper(word.substr(0, first)) + lower(word.substr(first));
    word.clear();
  };
  for (size_t position = 0; position < text.size();) {
    const size_t begin = position;
    const char32_t c = decode_code_point(text, position);
    if (c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || is_python_space(c)) {
      flush();
      result += text.substr(begin, position - begin);
    } else {
      word += text.substr(begin, position - begin);
    }
  }
  flush();
  return renderer.string(std::move(result));
}

Value trim(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  const Parameters parameters("trim", arguments, {"chars"});
  const Value text = soft_string(renderer, subject);
  renderer.budget().pay_for_text(text.text().size());
  if (!parameters.given(0)) return renderer.string(std::string(strip(text.text(), nullptr, true, true)), text.is_markup());
  const std::string_view chars = parameters.need_text(0);
  renderer.budget().pay_for_text(text.text().size() * (1 + chars.size() / 8));
  return renderer.string(std::string(strip(text.text(), &chars, true, true)), text.is_markup());
}

Value replace_filter(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  const Parameters parameters("replace", arguments, {"old", "new", "count"});
  const std::string text = renderer.text_of(subject), old_text = renderer.text_of(parameters.need(0)),
                    new_text = renderer.text_of(parameters.need(1));
  const int64_t count = parameters.given(2) ? parameters.integer(2, -1) : -1;
  renderer.budget().pay_for_text(2 * text.size());
  const size_t bytes = replaced_bytes(text, old_text, new_text, count);
  renderer.budget().check_text(bytes);
  renderer.budget().pay_for_text(bytes);
  return renderer.string(replace(text, old_text, new_text, count));
}

Value indent(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  const Parameters parameters("indent", arguments, {"width", "first", "blank"});
  if (subject.is(Kind::kUndefined)) raise_undefined(subject);
  if (subject.is(Kind::kList)) raise_python("AttributeError", "'list' object has no attribute 'splitlines'");  // [] += "\n" works
  if (!subject.is(Kind::kString)) {
    raise_python("TypeError", fmt::format("unsupported operand type(s) for +=: '{}' and 'str'", type_name(subject)));
  }
  const Value width = parameters.get(0, Value::integer(4));
  std::string indention;
  if (width.is(Kind::kString)) {
    indention = width.text();
  } else {
    const int64_t spaces = std::max<int64_t>(0, parameters.integer(0, 4));
    renderer.budget().check_text(static_cast<size_t>(spaces));
    indention.assign(static_cast<size_t>(spaces), ' ');
  }
  const bool first = parameters.flag(1), blank = parameters.flag(2), markup = subject.is_markup();
  if (markup) indention = width.is(Kind::kString) && !width.is_markup() ? escape_html(indention) : indention;
  const std::string text = subject.text() + "\n";
  const auto lines = split_lines(text, false);
  renderer.budget().pay_for_text(text.size());
  std::string result = first ? indention : "";
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i) result += '\n';
    if (i && (blank || !lines[i].empty())) result += indention;
    result += lines[i];
    renderer.budget().check_text(result.size());
  }
  return renderer.string(std::move(result), markup);
}

Value string_filter(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  no_arguments("string", arguments);
  return soft_string(renderer, subject);
}

Value safe(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  no_arguments("safe", arguments);
  return renderer.string(renderer.text_of(subject), true);
}

Value escape(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  no_arguments("escape", arguments);
  return subject.is_markup() ? subject : renderer.string(escape_html(renderer.text_of(subject)), true);
}

Value center(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  const Parameters parameters("center", arguments, {"width"});
  const Value text = soft_string(renderer, subject);
  CallArguments width;
  width.positional.push_back(Value::integer(parameters.integer(0, 80)));
  return renderer.call(renderer.get_attribute(text, "center"), width);
}

Value word_count(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  no_arguments("wordcount", arguments);
  const std::string text = renderer.text_of(subject);
  int64_t words = 0;
  bool inside = false;
  for (size_t position = 0; position < text.size();) {
    const char32_t c = decode_code_point(text, position);
    const bool word = c == '_' || is_alphanumeric(c);
    words += word && !inside;
    inside = word;
  }
  return Value::integer(words);
}

Value to_json(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  const Parameters parameters("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = parameters.flag(0);
  if (parameters.given(1)) {
    const Value width = parameters.need(1);
    if (width.is(Kind::kString)) {
      style.indent = width.text();
    } else {
      const int64_t spaces = std::max<int64_t>(0, parameters.integer(1, 0));
      renderer.budget().check_text(static_cast<size_t>(spaces));
      style.indent = std::string(static_cast<size_t>(spaces), ' ');
    }
    style.item_separator = ",";
  }
  if (parameters.given(2)) {
    const std::vector<Value> separators = to_vector(renderer.budget(), parameters.need(2));
    if (separators.size() != 2 || !separators[0].is(Kind::kString) || !separators[1].is(Kind::kString)) {
      raise_python("TypeError", "separators must be two strings");
    }
    style.item_separator = separators[0].text();
    style.key_separator = separators[1].text();
  }
  style.sort_keys = parameters.flag(3);
  return renderer.string(json_dumps(renderer.budget(), subject, style));
}

}  // namespace

const FilterTable& text_filters() {
  static const FilterTable table = {{"upper", convert<upper>},
                                    {"lower", convert<lower>},
                                    {"capitalize", convert<capitalize>},
                                    {"title", title_filter},
                                    {"trim", trim},
                                    {"replace", replace_filter},
                                    {"indent", indent},
                                    {"string", string_filter},
                                    {"safe", safe},
                                    {"escape", escape},
                                    {"e", escape},
                                    {"center", center},
                                    {"wordcount", word_count},
                                    {"tojson", to_json}};
  return table;
}

}  // namespace graft::jinja
