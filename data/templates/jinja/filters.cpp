#include "data/templates/jinja/filters.h"

namespace graft::jinja {
namespace {

Value unsupported(Renderer&, const Value&, CallArguments&) {
  raise_python("TemplateRuntimeError", "this filter of jinja2 is not supported by graft, because no chat template was seen to use it");
}

const FilterTable& all_filters() {
  static const FilterTable table = [] {
    FilterTable all;
    for (const FilterTable* part : {&text_filters(), &number_filters(), &sequence_filters(), &selection_filters()}) {
      all.insert(part->begin(), part->end());
    }
    for (const std::string_view name : {"filesizeformat", "forceescape", "format", "groupby", "pprint", "random", "striptags", "truncate",
                                        "urlencode", "urlize", "wordwrap", "xmlattr", "slice"}) {
      all.emplace(name, unsupported);
    }
    return all;
  }();
  return table;
}

}  // namespace

Filter find_filter(std::string_view name) {
  const auto found = all_filters().find(name);
  return found == all_filters().end() ? nullptr : found->second;
}

}  // namespace graft::jinja
