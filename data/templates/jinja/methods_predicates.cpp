// str.isalpha() and its like: true when the text is not empty and all of it qualifies.
#include "data/templates/jinja/arguments.h"
#include "data/templates/jinja/methods.h"
#include "data/templates/jinja/python_text.h"

namespace graft::jinja {
namespace {

template <bool (*kClass)(char32_t)>
Value all_of(Renderer& renderer, const Value& self, CallArguments& arguments) {
  Parameters("str predicate", arguments, {});
  const std::string& text = self.text();
  renderer.budget().pay_for_text(4 * text.size());
  for (size_t position = 0; position < text.size();) {
    if (!kClass(decode_code_point(text, position))) return Value::boolean(false);
  }
  return Value::boolean(!text.empty());
}

template <bool (*kProperty)(std::string_view)>
Value whole(Renderer& renderer, const Value& self, CallArguments& arguments) {
  Parameters("str predicate", arguments, {});
  renderer.budget().pay_for_text(4 * self.text().size());
  return Value::boolean(kProperty(self.text()));
}

bool is_title_case(std::string_view text) { return title(text) == text && (is_upper(upper(text)) || is_lower(lower(text))); }
bool is_ascii(std::string_view text) { return static_cast<size_t>(count_code_points(text)) == text.size() && text.find_first_of("\x80") == std::string_view::npos; }
bool all_printable(std::string_view text) {
  for (size_t position = 0; position < text.size();) {
    if (!is_printable(decode_code_point(text, position))) return false;
  }
  return true;
}

}  // namespace

const MethodTable& string_predicates() {
  static const MethodTable table = {{"isalpha", all_of<is_alphabetic>},  {"isdigit", all_of<is_decimal_digit>},
                                    {"isdecimal", all_of<is_decimal_digit>}, {"isalnum", all_of<is_alphanumeric>},
                                    {"isspace", all_of<is_python_space>}, {"islower", whole<is_lower>},
                                    {"isupper", whole<is_upper>},         {"istitle", whole<is_title_case>},
                                    {"isascii", whole<is_ascii>},         {"isprintable", whole<all_printable>}};
  return table;
}

}  // namespace graft::jinja
