#pragma once
#include <string>
#include <string_view>
#include <unordered_map>

#include "data/templates/jinja/renderer.h"

namespace graft::jinja {

using Filter = Value (*)(Renderer& renderer, const Value& subject, CallArguments& arguments);
using FilterTable = std::unordered_map<std::string_view, Filter>;

// Null when jinja2 has no filter of that name. Those it has and chat templates do not use raise an error that says so.
Filter find_filter(std::string_view name);

const FilterTable& text_filters();       // upper, trim, replace, tojson, ...
const FilterTable& number_filters();     // int, round, ...
const FilterTable& sequence_filters();   // join, length, first, sort, ...
const FilterTable& selection_filters();  // map, select, rejectattr, ...

// Jinja's make_attrgetter: "a.b.0" or an int, each part looked up as an item. missing: the item itself.
Value get_path(Renderer& renderer, const Value& item, const Value& path, const Value& otherwise = Value::none());

}  // namespace graft::jinja
