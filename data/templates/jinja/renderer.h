// Walks a template's tree for one rendering. It sees only the variables it is given, a clock, and what the template itself makes of them.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "data/templates/jinja/ast.h"
#include "data/templates/jinja/budget.h"
#include "data/templates/rendered_text.h"

namespace graft::jinja {

// The local variables of a running function. Macros made inside refer to it: it then lives until the end of the rendering.
struct Activation {
  Activation* outer = nullptr;
  std::vector<Value> slots;
  bool captured = false;
};

class Renderer {
 public:
  // The template and the variables must outlive the renderer. now: unix seconds, UTC.
  Renderer(const Template& parsed, const nlohmann::ordered_json& variables, int64_t now, const Limits& limits);
  ~Renderer();
  RenderedText run();             // throws PythonError, RaisedException or BoundExceeded; line() tells where
  int line() const { return line_; }

  // For filters, tests, methods and globals.
  Budget& budget() { return budget_; }
  int64_t now() const { return now_; }
  Value string(std::string text, bool markup = false) { return make_string(&budget_, std::move(text), markup); }
  std::string text_of(const Value& value);                           // str(value)
  Value get_attribute(const Value& owner, const std::string& name);  // owner.name: Python's attribute first, then the key
  Value get_item(const Value& owner, const Value& index);            // owner[index]: the key first
  Value call(const Value& callee, CallArguments& arguments);
  Value apply_filter(const std::string& name, const Value& subject, CallArguments& arguments);
  bool apply_test(const std::string& name, const Value& subject, CallArguments& arguments);
  Value make_namespace(std::vector<std::pair<std::string, Value>> attributes);

 private:
  enum class Flow { kNormal, kBreak, kContinue };

  // Statements (renderer_statements.cpp).
  Flow execute(const Body& body, std::string& out);
  Flow execute(const Statement& statement, std::string& out);
  Flow execute_for(const Statement& loop, std::string& out);
  void execute_with(const Statement& block);
  void execute_call_block(const Statement& block, std::string& out);
  void execute_generation(const Statement& block, std::string& out);
  Next filtered(const Statement& loop, Next source);
  void enter(const ScopeLoads& loads);
  void leave(const ScopeLoads& loads);
  void assign(const Expression& target, const Value& value);
  Value resolve(const std::string& name);

  // Macros (renderer_macros.cpp).
  Value make_macro(const Function& function);
  Value call_macro(const Function& function, Activation& outer, CallArguments& arguments);
  void bind_parameters(const Function& function, CallArguments& arguments);

  // Expressions (renderer_expressions.cpp).
  Value evaluate(const Expression& node);
  Value evaluate_name(const Expression& node);
  Value filter_text(const Expression* node, Value text);  // the filters of a filter or set block; the innermost has no operand
  Value evaluate_compare(const Expression& node);
  Value evaluate_dict(const Expression& node);
  CallArguments evaluate_arguments(const Arguments& arguments);
  bool compare(Comparison comparison, const Value& a, const Value& b);
  Value& slot(const Slot& slot);

  void check_stack() const;  // expression trees, macros and values may nest only as far as the thread's stack allows

  const Template& template_;
  const nlohmann::ordered_json& variables_;
  const int64_t now_;
  Budget budget_;
  const char* stack_floor_ = nullptr;
  int line_ = 1;
  int call_depth_ = 0;
  Activation* activation_ = nullptr;
  std::vector<std::unique_ptr<Activation>> captured_;                // of returned functions
  std::vector<std::shared_ptr<NamespaceObject>> namespaces_;         // may refer to each other in circles: cleared at the end
  std::vector<std::pair<std::string, Value>> resolved_;              // variables already converted from JSON
  std::string* root_output_ = nullptr;
  std::vector<TextSpan> generation_;                                 // in code points
};

struct RaisedException {  // raise_exception(message)
  std::string message;
};

}  // namespace graft::jinja
