#include "data/templates/jinja/check_names.h"

#include "data/templates/jinja/filters.h"
#include "data/templates/jinja/lexer.h"
#include "data/templates/jinja/tests.h"

namespace graft::jinja {
namespace {

// `reached` is false in the branches of an if; a new scope (loop, macro, block) inside one counts as reached again, as in jinja2.
class NameChecker {
 public:
  void check(const Body& body, bool reached) {
    for (const auto& statement : body) check(*statement, reached);
  }

 private:
  void check(const ExpressionPtr& node, bool reached) {
    if (!node) return;
    if (node->kind == ExpressionKind::kConditional) reached = false;
    if (reached && node->kind == ExpressionKind::kFilter && !find_filter(node->name)) {
      throw SyntaxError{"No filter named '" + node->name + "'.", node->line};
    }
    if (reached && node->kind == ExpressionKind::kTest && !find_test(node->name)) {
      throw SyntaxError{"No test named '" + node->name + "'.", node->line};
    }
    for (const auto& operand : node->operands) check(operand, reached);
    for (const auto& argument : node->arguments.positional) check(argument, reached);
    for (const auto& [name, argument] : node->arguments.keywords) check(argument, reached);
    check(node->arguments.star, reached);
    check(node->arguments.double_star, reached);
  }

  void check(const Statement& statement, bool reached) {
    const bool is_if = statement.kind == StatementKind::kIf;
    const bool here = reached && !is_if;
    const bool captures = statement.kind == StatementKind::kSetBlock || statement.kind == StatementKind::kFilterBlock;
    check(statement.expression, here || captures);
    for (const auto& output : statement.outputs) check(output, here);
    check(statement.filter_test, true);
    if (statement.function) {
      for (const auto& value : statement.function->defaults) check(value, true);
      check(statement.function->body, true);
    }
    check(statement.body, !is_if);
    check(statement.otherwise, !is_if);
  }
};

}  // namespace

void check_names(const Template& parsed) { NameChecker().check(parsed.root.body, true); }

}  // namespace graft::jinja
