// Resolves every name of a template to a slot, by the rules of jinja2's compiler (its idtracking module): what a scope stores is known before
// it runs, so a name that the root stores later is undefined before, and a loop's variables start afresh in every iteration.
#pragma once
#include "data/templates/jinja/ast.h"

namespace graft::jinja {

void resolve_scopes(Template& parsed);

}  // namespace graft::jinja
