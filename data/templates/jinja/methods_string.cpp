// Methods of str. On markup they return markup, with text arguments escaped where markupsafe does so.
#include <algorithm>

#include "data/templates/jinja/arguments.h"
#include "data/templates/jinja/methods.h"
#include "data/templates/jinja/operators.h"
#include "data/templates/jinja/python_text.h"
#include "data/templates/jinja/repr.h"

namespace graft::jinja {
namespace {

Value like(Renderer& renderer, const Value& self, std::string_view text) {
  return renderer.string(std::string(text), self.is_markup());
}

template <std::string (*kConvert)(std::string_view)>
Value convert(Renderer& renderer, const Value& self, CallArguments& arguments) {
  Parameters("str method", arguments, {});
  renderer.budget().pay_for_text(16 * self.text().size());
  return like(renderer, self, kConvert(self.text()));
}

template <bool kLeft, bool kRight>
Value strip_method(Renderer& renderer, const Value& self, CallArguments& arguments) {
  const Parameters parameters("strip", arguments, {"chars"});
  renderer.budget().pay_for_text(self.text().size());
  if (!parameters.given(0)) return like(renderer, self, strip(self.text(), nullptr, kLeft, kRight));
  const std::string_view chars = parameters.need_text(0);
  renderer.budget().pay_for_text(self.text().size() * (1 + chars.size() / 8));
  return like(renderer, self, strip(self.text(), &chars, kLeft, kRight));
}

Value list_of(Renderer& renderer, const Value& self, const std::vector<std::string_view>& parts) {
  std::vector<Value> items;
  items.reserve(parts.size());
  for (const std::string_view part : parts) items.push_back(like(renderer, self, part));
  return make_list(&renderer.budget(), std::move(items));
}

// A search from the right compares at every place: paid for by the length of both.
void pay_for_search(Renderer& renderer, std::string_view text, std::string_view needle, bool from_right) {
  renderer.budget().pay_for_text(from_right ? text.size() * (1 + needle.size() / 64) : text.size());
}

template <bool kFromRight>
Value split(Renderer& renderer, const Value& self, CallArguments& arguments) {
  const Parameters parameters("split", arguments, {"sep", "maxsplit"});
  const int64_t maxsplit = parameters.integer(1, -1);
  renderer.budget().pay_for_text(4 * self.text().size());
  if (!parameters.given(0)) return list_of(renderer, self, split_white_space(self.text(), maxsplit, kFromRight));
  const std::string& separator = parameters.need_text(0);
  if (separator.empty()) raise_python("ValueError", "empty separator");
  pay_for_search(renderer, self.text(), separator, kFromRight);
  return list_of(renderer, self, split_at(self.text(), separator, maxsplit, kFromRight));
}

Value splitlines(Renderer& renderer, const Value& self, CallArguments& arguments) {
  const Parameters parameters("splitlines", arguments, {"keepends"});
  renderer.budget().pay_for_text(self.text().size());
  return list_of(renderer, self, split_lines(self.text(), parameters.flag(0)));
}

template <bool kFromRight>
Value partition(Renderer& renderer, const Value& self, CallArguments& arguments) {
  const Parameters parameters("partition", arguments, {"sep"});
  const std::string& separator = parameters.need_text(0);
  if (separator.empty()) raise_python("ValueError", "empty separator");
  const std::string_view text = self.text();
  pay_for_search(renderer, text, separator, kFromRight);
  const size_t at = kFromRight ? text.rfind(separator) : find_bytes(text, separator);
  const auto tuple = [&](std::string_view a, std::string_view b, std::string_view c) {
    return make_tuple(&renderer.budget(), {like(renderer, self, a), like(renderer, self, b), like(renderer, self, c)});
  };
  if (at == std::string_view::npos) return kFromRight ? tuple("", "", text) : tuple(text, "", "");
  return tuple(text.substr(0, at), separator, text.substr(at + separator.size()));
}

// The part of the text that start and stop (code points, may be negative) select; nullopt when start lies past its end.
std::optional<std::string_view> window(const Value& self, const Parameters& parameters, size_t first, int64_t* begin) {
  const int64_t size = length_in_code_points(self);
  int64_t start = parameters.given(first) ? parameters.integer(first, 0) : 0;
  int64_t stop = parameters.given(first + 1) ? parameters.integer(first + 1, size) : size;
  if (start < 0) start = std::max<int64_t>(0, start + size);
  if (stop < 0) stop = std::max<int64_t>(0, stop + size);
  stop = std::min(stop, size);
  if (start > stop) return std::nullopt;
  const size_t from = byte_offset(self.text(), start), to = byte_offset(self.text(), stop);
  *begin = start;
  return std::string_view(self.text()).substr(from, to - from);
}

template <bool kAtEnd>
Value starts_or_ends_with(Renderer& renderer, const Value& self, CallArguments& arguments) {
  const char* name = kAtEnd ? "endswith" : "startswith";
  const Parameters parameters(name, arguments, {"prefix", "start", "end"});
  const Value wanted = parameters.need(0);
  if (!wanted.is(Kind::kString) && !wanted.is(Kind::kTuple)) {
    raise_python("TypeError", fmt::format("{} first arg must be str or a tuple of str, not {}", name, type_name(wanted)));
  }
  int64_t begin = 0;
  if (parameters.has(1)) renderer.budget().pay_for_text(self.text().size());
  const auto text = window(self, parameters, 1, &begin);
  if (!text) return Value::boolean(false);
  const auto matches = [&](const Value& affix) {
    if (!affix.is(Kind::kString)) {
      raise_python("TypeError", fmt::format("tuple for {} must only contain str, not {}", name, type_name(affix)));
    }
    const std::string& part = affix.text();
    renderer.budget().pay_for_text(part.size());
    return kAtEnd ? text->ends_with(part) : text->starts_with(part);
  };
  if (wanted.is(Kind::kString)) return Value::boolean(matches(wanted));
  return Value::boolean(std::any_of(wanted.items().begin(), wanted.items().end(), matches));
}

// find, rfind: -1 when absent; index, rindex: ValueError.
template <bool kFromRight, bool kRaises>
Value find(Renderer& renderer, const Value& self, CallArguments& arguments) {
  const Parameters parameters("find", arguments, {"sub", "start", "end"});
  const std::string& needle = parameters.need_text(0);
  pay_for_search(renderer, self.text(), needle, kFromRight);
  int64_t begin = 0;
  const auto text = window(self, parameters, 1, &begin);
  const size_t at = !text ? std::string_view::npos : kFromRight ? text->rfind(needle) : find_bytes(*text, needle);
  if (at != std::string_view::npos) return Value::integer(begin + count_code_points(text->substr(0, at)));
  if (kRaises) raise_python("ValueError", "substring not found");
  return Value::integer(-1);
}

Value count_text(Renderer& renderer, const Value& self, CallArguments& arguments) {
  const Parameters parameters("count", arguments, {"sub", "start", "end"});
  const std::string& needle = parameters.need_text(0);
  renderer.budget().pay_for_text(self.text().size());
  int64_t begin = 0, found = 0;
  const auto text = window(self, parameters, 1, &begin);
  if (!text) return Value::integer(0);
  if (needle.empty()) return Value::integer(count_code_points(*text) + 1);
  for (size_t at = find_bytes(*text, needle); at != std::string_view::npos; at = find_bytes(*text, needle, at + needle.size())) ++found;
  return Value::integer(found);
}

Value replace_method(Renderer& renderer, const Value& self, CallArguments& arguments) {
  const Parameters parameters("replace", arguments, {"old", "new", "count"});
  const std::string& old_text = parameters.need_text(0);
  const Value new_value = parameters.need(1);
  parameters.need_text(1);
  const std::string new_text = self.is_markup() && !new_value.is_markup() ? escape_html(new_value.text()) : new_value.text();
  const int64_t limit = parameters.integer(2, -1);
  renderer.budget().pay_for_text(2 * self.text().size());
  const size_t bytes = replaced_bytes(self.text(), old_text, new_text, limit);
  renderer.budget().check_text(bytes);
  renderer.budget().pay_for_text(bytes);
  return like(renderer, self, replace(self.text(), old_text, new_text, limit));
}

template <bool kSuffix>
Value remove_affix(Renderer& renderer, const Value& self, CallArguments& arguments) {
  const Parameters parameters("removeprefix", arguments, {"affix"});
  const std::string& affix = parameters.need_text(0);
  const std::string_view text = self.text();
  if (kSuffix) return like(renderer, self, text.ends_with(affix) ? text.substr(0, text.size() - affix.size()) : text);
  return like(renderer, self, text.starts_with(affix) ? text.substr(affix.size()) : text);
}

Value join(Renderer& renderer, const Value& self, CallArguments& arguments) {
  const Parameters parameters("join", arguments, {"iterable"});
  const Value iterable = parameters.need(0);
  if (!is_iterable(iterable)) raise_python("TypeError", "can only join an iterable");
  const Next next = iterate(renderer.budget(), iterable);
  std::string result;
  size_t index = 0;
  for (Value item; next(item); ++index) {
    if (!item.is(Kind::kString) && !self.is_markup()) {
      raise_python("TypeError", fmt::format("sequence item {}: expected str instance, {} found", index, type_name(item)));
    }
    if (index) result += self.text();
    result += !self.is_markup() || item.is_markup() ? item.text() : escape_html(renderer.text_of(item));
    renderer.budget().check_text(result.size());
  }
  renderer.budget().pay_for_text(result.size());
  return like(renderer, self, result);
}

enum class Side { kLeft, kRight, kBoth };

template <Side kText>
Value justify(Renderer& renderer, const Value& self, CallArguments& arguments) {
  const Parameters parameters("justify", arguments, {"width", "fillchar"});
  parameters.need(0);
  const Value fill = parameters.get(1, renderer.string(" "));
  if (!fill.is(Kind::kString) || length_in_code_points(fill) != 1) {
    raise_python("TypeError", "The fill character must be exactly one character long");
  }
  const int64_t missing = std::max<int64_t>(0, parameters.integer(0, 0) - length_in_code_points(self));
  renderer.budget().check_text(std::min<size_t>(static_cast<size_t>(missing), size_t{1} << 40) * fill.text().size());
  renderer.budget().pay_for_text(static_cast<size_t>(missing) * fill.text().size());
  // Python's center puts the odd blank to the left when the width is odd.
  const int64_t left = kText == Side::kLeft    ? 0
                       : kText == Side::kRight ? missing
                                               : missing / 2 + (missing & parameters.integer(0, 0) & 1);
  std::string result;
  for (int64_t i = 0; i < left; ++i) result += fill.text();
  result += self.text();
  for (int64_t i = left; i < missing; ++i) result += fill.text();
  return like(renderer, self, result);
}

Value zfill(Renderer& renderer, const Value& self, CallArguments& arguments) {
  const Parameters parameters("zfill", arguments, {"width"});
  parameters.need(0);
  const int64_t missing = std::max<int64_t>(0, parameters.integer(0, 0) - length_in_code_points(self));
  renderer.budget().check_text(static_cast<size_t>(missing));
  const size_t sign = !self.text().empty() && (self.text()[0] == '-' || self.text()[0] == '+') ? 1 : 0;
  return like(renderer, self, self.text().substr(0, sign) + std::string(static_cast<size_t>(missing), '0') + self.text().substr(sign));
}

}  // namespace

Value format_method(Renderer& renderer, const Value& self, CallArguments& arguments) {
  const std::string& format = self.text();
  std::string result;
  size_t next_index = 0;
  for (size_t i = 0; i < format.size(); ++i) {
    const char c = format[i];
    if ((c == '{' || c == '}') && i + 1 < format.size() && format[i + 1] == c) {
      result += c;
      ++i;
      continue;
    }
    if (c == '}') raise_python("ValueError", "Single '}' encountered in format string");
    if (c != '{') {
      result += c;
      continue;
    }
    const size_t end = format.find('}', i);
    if (end == std::string::npos) raise_python("ValueError", "expected '}' before end of string");
    std::string field = format.substr(i + 1, end - i - 1);
    const bool as_repr = field.ends_with("!r");
    if (as_repr || field.ends_with("!s")) field.resize(field.size() - 2);
    if (field.find_first_of(":.[{!") != std::string::npos) {
      raise_python("ValueError", "the format field {" + field + "} is not supported by graft: only {}, {0}, {name}, !r and !s are");
    }
    Value value;
    if (field.empty() || field.find_first_not_of("0123456789") == std::string::npos) {
      const size_t index = field.empty() ? next_index++ : field.size() > 6 ? SIZE_MAX : std::stoul(field);
      if (index >= arguments.positional.size()) {
        raise_python("IndexError", fmt::format("Replacement index {} out of range for positional args tuple", index));
      }
      value = arguments.positional[index];
    } else {
      for (const auto& [name, argument] : arguments.keywords) {
        if (name == field) value = argument;
      }
      if (value.is(Kind::kMissing)) raise_python("KeyError", repr_text(field));
    }
    std::string shown;
    as_repr ? append_repr(renderer.budget(), value, shown) : append_text(renderer.budget(), value, shown);
    result += self.is_markup() && !value.is_markup() ? escape_html(shown) : shown;
    renderer.budget().check_text(result.size());
    i = end;
  }
  return like(renderer, self, result);
}

const MethodTable& string_methods() {
  static const MethodTable table = {{"upper", convert<upper>},
                                    {"lower", convert<lower>},
                                    {"title", convert<title>},
                                    {"capitalize", convert<capitalize>},
                                    {"swapcase", convert<swapcase>},
                                    {"strip", strip_method<true, true>},
                                    {"lstrip", strip_method<true, false>},
                                    {"rstrip", strip_method<false, true>},
                                    {"split", split<false>},
                                    {"rsplit", split<true>},
                                    {"splitlines", splitlines},
                                    {"partition", partition<false>},
                                    {"rpartition", partition<true>},
                                    {"startswith", starts_or_ends_with<false>},
                                    {"endswith", starts_or_ends_with<true>},
                                    {"find", find<false, false>},
                                    {"rfind", find<true, false>},
                                    {"index", find<false, true>},
                                    {"rindex", find<true, true>},
                                    {"count", count_text},
                                    {"replace", replace_method},
                                    {"removeprefix", remove_affix<false>},
                                    {"removesuffix", remove_affix<true>},
                                    {"join", join},
                                    {"ljust", justify<Side::kLeft>},
                                    {"rjust", justify<Side::kRight>},
                                    {"center", justify<Side::kBoth>},
                                    {"zfill", zfill},
                                    {"format", format_method}};
  return table;
}

}  // namespace graft::jinja
