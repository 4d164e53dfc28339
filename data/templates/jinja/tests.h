#pragma once
#include <string_view>

#include "data/templates/jinja/renderer.h"

namespace graft::jinja {

using Test = bool (*)(Renderer& renderer, const Value& subject, CallArguments& arguments);

Test find_test(std::string_view name);  // null when jinja2 has no test of that name

}  // namespace graft::jinja
