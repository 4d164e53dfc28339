// Filters that take or make sequences and mappings.
#include <algorithm>

#include "data/templates/jinja/arguments.h"
#include "data/templates/jinja/filters.h"
#include "data/templates/jinja/operators.h"
#include "data/templates/jinja/python_text.h"
#include "data/templates/jinja/repr.h"

namespace graft::jinja {
namespace {

Value length_filter(Renderer&, const Value& subject, CallArguments& arguments) {
  Parameters("length", arguments, {});
  return Value::integer(length(subject));
}

Value list_filter(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  Parameters("list", arguments, {});
  return make_list(&renderer.budget(), to_vector(renderer.budget(), subject));
}

Value first(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  Parameters("first", arguments, {});
  Value item;
  return iterate(renderer.budget(), subject)(item) ? item
                                                   : make_undefined_hint(&renderer.budget(), "No first item, sequence was empty.");
}

Value last(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  Parameters("last", arguments, {});
  if (!length_of(subject)) raise_python("TypeError", "'" + type_name(subject) + "' object is not reversible");
  const std::vector<Value> items = to_vector(renderer.budget(), subject);
  return items.empty() ? make_undefined_hint(&renderer.budget(), "No last item, sequence was empty.") : items.back();
}

Value default_filter(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  const Parameters parameters("default", arguments, {"default_value", "boolean"});
  if (!subject.is(Kind::kUndefined) && !(parameters.flag(1) && !truth(subject))) return subject;
  return parameters.has(0) ? parameters.need(0) : renderer.string("");
}

Value join(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  const Parameters parameters("join", arguments, {"d", "attribute"});
  const std::string separator = parameters.has(0) ? renderer.text_of(parameters.need(0)) : "";
  const Value attribute = parameters.get(1, Value::none());
  const Next next = iterate(renderer.budget(), subject);
  std::string result;
  bool first = true;
  for (Value item; next(item);) {
    if (!first) result += separator;
    first = false;
    append_text(renderer.budget(), attribute.is(Kind::kNone) ? item : get_path(renderer, item, attribute), result);
  }
  return renderer.string(std::move(result));
}

Value items(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  Parameters("items", arguments, {});
  // As in jinja, the complaint comes when the result is iterated.
  return make_generator(
      &renderer.budget(),
      [&budget = renderer.budget(), subject, source = Next()](Value& out) mutable {
        if (!source) {
          if (subject.is(Kind::kUndefined)) return false;
          if (!subject.is(Kind::kDict)) raise_python("TypeError", "Can only get item pairs from a mapping.");
          source = iterate(budget, make_view(&budget, subject, ViewObject::Part::kItems));
        }
        return source(out);
      },
      subject.depth());
}

// Jinja's ignore_case: text in lower case, the rest as it is.
Value ignore_case(Renderer& renderer, const Value& value) {
  return value.is(Kind::kString) ? renderer.string(lower(value.text())) : value;
}

// Sorts by keys made before, stably; `reversed` keeps equal elements in their order, as Python does.
std::vector<Value> sorted_by(Renderer& renderer, std::vector<Value> items, const std::vector<Value>& keys, bool reversed) {
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return reversed ? less(renderer.budget(), keys[b], keys[a]) : less(renderer.budget(), keys[a], keys[b]);
  });
  std::vector<Value> result;
  result.reserve(items.size());
  for (const size_t i : order) result.push_back(std::move(items[i]));
  return result;
}

Value dictsort(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  const Parameters parameters("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const std::string by = parameters.has(1) ? parameters.need_text(1) : "key";
  if (by != "key" && by != "value") raise_python("FilterArgumentError", "You can only sort by either \"key\" or \"value\"");
  if (subject.is(Kind::kUndefined)) raise_undefined(subject);
  if (!subject.is(Kind::kDict)) {
    raise_python("AttributeError", "'" + type_name(subject) + "' object has no attribute 'items'");
  }
  std::vector<Value> pairs, keys;
  for (const auto& [key, value] : subject.dict().entries) {
    const Value& sorted_on = by == "key" ? key : value;
    keys.push_back(parameters.flag(0) ? sorted_on : ignore_case(renderer, sorted_on));
    pairs.push_back(make_tuple(&renderer.budget(), {key, value}));
  }
  return make_list(&renderer.budget(), sorted_by(renderer, std::move(pairs), keys, parameters.flag(2)));
}

// The key of sort: one value per comma-separated attribute.
Value sort_key(Renderer& renderer, const Value& item, const Value& attribute, bool case_sensitive) {
  std::vector<Value> parts;
  const auto add = [&](Value value) { parts.push_back(case_sensitive ? value : ignore_case(renderer, value)); };
  if (!attribute.is(Kind::kString)) {
    add(get_path(renderer, item, attribute));
  } else {
    for (const std::string_view path : split_at(attribute.text(), ",", -1, false)) {
      add(get_path(renderer, item, renderer.string(std::string(path))));
    }
  }
  return make_list(&renderer.budget(), std::move(parts));
}

Value sort(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  const Parameters parameters("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  std::vector<Value> items = to_vector(renderer.budget(), subject);
  std::vector<Value> keys;
  for (const Value& item : items) {
    keys.push_back(sort_key(renderer, item, parameters.get(2, Value::none()), parameters.flag(1)));
  }
  return make_list(&renderer.budget(), sorted_by(renderer, std::move(items), keys, parameters.flag(0)));
}

// As in jinja's generators, a subject that cannot be iterated is complained of when the first element is asked for.
Next lazily(Renderer& renderer, const Value& subject) {
  return [&budget = renderer.budget(), subject, source = Next()](Value& out) mutable {
    if (!source) source = iterate(budget, subject);
    return source(out);
  };
}

Value unique(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  const Parameters parameters("unique", arguments, {"case_sensitive", "attribute"});
  const bool case_sensitive = parameters.flag(0);
  return make_generator(
      &renderer.budget(),
      [&renderer, next = lazily(renderer, subject), attribute = parameters.get(1, Value::none()), case_sensitive,
       seen = std::vector<Value>()](Value& out) mutable {
        while (next(out)) {
          Value key = get_path(renderer, out, attribute);
          if (!case_sensitive) key = ignore_case(renderer, key);
          check_hashable(key);
          const bool known = std::any_of(seen.begin(), seen.end(), [&](const Value& k) { return equal(&renderer.budget(), k, key); });
          if (known) continue;
          seen.push_back(std::move(key));
          return true;
        }
        return false;
      },
      subject.depth());
}

Value extreme(Renderer& renderer, const Value& subject, CallArguments& arguments, bool largest) {
  const Parameters parameters(largest ? "max" : "min", arguments, {"case_sensitive", "attribute"});
  const Next next = iterate(renderer.budget(), subject);
  Value best, best_key;
  for (Value item; next(item);) {
    Value key = get_path(renderer, item, parameters.get(1, Value::none()));
    if (!parameters.flag(0)) key = ignore_case(renderer, key);
    const bool better = best.is(Kind::kMissing) || (largest ? ordered(renderer.budget(), Order::kGreater, key, best_key)
                                                            : less(renderer.budget(), key, best_key));
    if (!better) continue;
    best = item;
    best_key = std::move(key);
  }
  return best.is(Kind::kMissing) ? make_undefined_hint(&renderer.budget(), "No aggregated item, sequence was empty.") : best;
}

Value max_filter(Renderer& renderer, const Value& subject, CallArguments& arguments) { return extreme(renderer, subject, arguments, true); }
Value min_filter(Renderer& renderer, const Value& subject, CallArguments& arguments) { return extreme(renderer, subject, arguments, false); }

Value sum(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  const Parameters parameters("sum", arguments, {"attribute", "start"});
  Value total = parameters.get(1, Value::integer(0));
  if (total.is(Kind::kString)) raise_python("TypeError", "sum() can't sum strings [use ''.join(seq) instead]");
  const Next next = iterate(renderer.budget(), subject);
  for (Value item; next(item);) {
    total = binary(renderer.budget(), BinaryOperator::kAdd, total, get_path(renderer, item, parameters.get(0, Value::none())));
  }
  return total;
}

Value reverse(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  Parameters("reverse", arguments, {});
  if (subject.is(Kind::kString)) {
    return slice(renderer.budget(), subject, Value::none(), Value::none(), Value::integer(-1));
  }
  if (!is_iterable(subject)) raise_python("FilterArgumentError", "argument must be iterable");
  std::vector<Value> items = to_vector(renderer.budget(), subject);
  std::reverse(items.begin(), items.end());
  const Value list = make_list(&renderer.budget(), std::move(items));
  if (!length_of(subject)) return list;  // of a generator, jinja returns a list
  return make_generator(&renderer.budget(), iterate(renderer.budget(), list), list.depth(),
                        subject.is(Kind::kList) ? "list_reverseiterator" : "reversed");
}

Value batch(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  const Parameters parameters("batch", arguments, {"linecount", "fill_with"});
  const int64_t size = parameters.integer(0, 0);
  parameters.need(0);
  return make_generator(
      &renderer.budget(),
      [&renderer, next = lazily(renderer, subject), size, fill = parameters.get(1, Value::none())](Value& out) mutable {
        std::vector<Value> row;
        for (Value item; static_cast<int64_t>(row.size()) != std::max<int64_t>(size, 1) && next(item);) row.push_back(std::move(item));
        if (row.empty()) return false;
        while (!fill.is(Kind::kNone) && static_cast<int64_t>(row.size()) < size) {
          renderer.budget().pay();
          row.push_back(fill);
        }
        out = make_list(&renderer.budget(), std::move(row));
        return true;
      },
      subject.depth() + 1);
}

Value attribute_filter(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  const Parameters parameters("attr", arguments, {"name"});
  const std::string name = renderer.text_of(parameters.need(0));
  if (subject.is(Kind::kDict)) {  // attributes only, no keys
    return renderer.get_attribute(make_dict(&renderer.budget(), {}), name);
  }
  return renderer.get_attribute(subject, name);
}

}  // namespace

Value get_path(Renderer& renderer, const Value& item, const Value& path, const Value& otherwise) {
  if (path.is(Kind::kNone)) return item;
  const auto step = [&](const Value& from, const Value& key) {
    Value next = renderer.get_item(from, key);
    return next.is(Kind::kUndefined) && !otherwise.is(Kind::kNone) ? otherwise : next;
  };
  if (!path.is(Kind::kString)) return step(item, path);
  Value result = item;
  for (const std::string_view part : split_at(path.text(), ".", -1, false)) {
    const bool digits = !part.empty() && part.size() < 18 && part.find_first_not_of("0123456789") == std::string_view::npos;
    result = step(result, digits ? Value::integer(std::stoll(std::string(part))) : renderer.string(std::string(part)));
  }
  return result;
}

const FilterTable& sequence_filters() {
  static const FilterTable table = {{"length", length_filter},
                                    {"count", length_filter},
                                    {"list", list_filter},
                                    {"first", first},
                                    {"last", last},
                                    {"default", default_filter},
                                    {"d", default_filter},
                                    {"join", join},
                                    {"items", items},
                                    {"dictsort", dictsort},
                                    {"sort", sort},
                                    {"unique", unique},
                                    {"max", max_filter},
                                    {"min", min_filter},
                                    {"sum", sum},
                                    {"reverse", reverse},
                                    {"batch", batch},
                                    {"attr", attribute_filter}};
  return table;
}

}  // namespace graft::jinja
