#pragma once
#include "data/templates/jinja/ast.h"

namespace graft::jinja {

// As jinja2's compiler: an unknown filter or test is a SyntaxError, except below an if statement or expression, where it fails when reached.
void check_names(const Template& parsed);

}  // namespace graft::jinja
