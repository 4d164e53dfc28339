#pragma once
#include <string>
#include <string_view>

#include "data/templates/jinja/renderer.h"

namespace graft::jinja {

// range, dict, namespace, raise_exception, strftime_now; missing for any other name.
Value find_global(Renderer& renderer, std::string_view name);

void check_namespace_name(std::string_view name);  // SecurityError for a leading underscore

// Python's datetime.strftime for a time in UTC without a zone, in the C locale.
std::string format_time(Renderer& renderer, std::string_view format, int64_t unix_seconds);

}  // namespace graft::jinja
