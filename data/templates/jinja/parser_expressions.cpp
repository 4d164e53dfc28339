#include <algorithm>

#include "data/templates/jinja/parser.h"

namespace graft::jinja {
namespace {

constexpr int kMaxNesting = 120;  // of brackets and blocks in the source
constexpr int kMaxDepth = 600;    // of an expression's tree: a + b + c + ... is as deep as it is long

ExpressionPtr make(ExpressionKind kind, int line, ExpressionPtr a = nullptr, ExpressionPtr b = nullptr) {
  auto node = std::make_unique<Expression>(kind, line);
  if (a) node->operands.push_back(std::move(a));
  if (b) node->operands.push_back(std::move(b));
  return node;
}

ExpressionPtr make_constant(Value value, int line) {
  auto node = std::make_unique<Expression>(ExpressionKind::kConstant, line);
  node->constant = std::move(value);
  return node;
}

}  // namespace

Parser::Nesting::Nesting(Parser& parser) : parser(parser) {
  if (++parser.nesting_ > kMaxNesting) parser.fail(fmt::format("nested more than {} deep", kMaxNesting));
}

ExpressionPtr Parser::finish(ExpressionPtr node) {
  int depth = 0;
  const auto include = [&](const ExpressionPtr& child) {
    if (child) depth = std::max(depth, child->depth);
  };
  for (const auto& operand : node->operands) include(operand);
  for (const auto& argument : node->arguments.positional) include(argument);
  for (const auto& [name, argument] : node->arguments.keywords) include(argument);
  include(node->arguments.star);
  include(node->arguments.double_star);
  node->depth = depth + 1;
  if (node->depth > kMaxDepth) fail(fmt::format("an expression of more than {} steps in a row", kMaxDepth));
  return node;
}

bool Parser::is_tuple_end(std::string_view end_name) const {
  const Token& token = current();
  return token.kind == TokenKind::kVariableEnd || token.kind == TokenKind::kBlockEnd || token.is_operator(")") ||
         (!end_name.empty() && token.is_name(end_name));
}

ExpressionPtr Parser::parse_tuple(bool with_conditional, std::string_view end_name, bool in_parentheses) {
  const int line = current().line;
  std::vector<ExpressionPtr> items;
  bool is_tuple = false;
  while (true) {
    if (!items.empty()) expect_operator(",");
    if (is_tuple_end(end_name)) break;
    items.push_back(with_conditional ? parse_expression() : parse_or());
    if (!current().is_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!items.empty()) return std::move(items[0]);
    if (!in_parentheses) fail("Expected an expression, got '" + describe(current()) + "'");
  }
  auto node = std::make_unique<Expression>(ExpressionKind::kTuple, line);
  node->operands = std::move(items);
  return finish(std::move(node));
}

ExpressionPtr Parser::parse_expression() {
  Nesting nesting(*this);
  return parse_conditional();
}

ExpressionPtr Parser::parse_conditional() {
  ExpressionPtr value = parse_or();
  while (current().is_name("if")) {
    const int line = take().line;
    auto node = make(ExpressionKind::kConditional, line, parse_or(), std::move(value));
    node->operands.push_back(skip_name("else") ? parse_expression() : nullptr);
    value = finish(std::move(node));
  }
  return value;
}

ExpressionPtr Parser::parse_or() {
  ExpressionPtr left = parse_and();
  while (current().is_name("or")) {
    const int line = take().line;
    left = finish(make(ExpressionKind::kOr, line, std::move(left), parse_and()));
  }
  return left;
}

ExpressionPtr Parser::parse_and() {
  ExpressionPtr left = parse_not();
  while (current().is_name("and")) {
    const int line = take().line;
    left = finish(make(ExpressionKind::kAnd, line, std::move(left), parse_not()));
  }
  return left;
}

ExpressionPtr Parser::parse_not() {
  if (!current().is_name("not")) return parse_compare();
  Nesting nesting(*this);
  const int line = take().line;
  return finish(make(ExpressionKind::kNot, line, parse_not()));
}

ExpressionPtr Parser::parse_compare() {
  static const std::vector<std::pair<std::string_view, Comparison>> kSymbols = {
      {"==", Comparison::kEqual}, {"!=", Comparison::kNotEqual}, {"<", Comparison::kLess},
      {"<=", Comparison::kLessEqual}, {">", Comparison::kGreater}, {">=", Comparison::kGreaterEqual}};
  const int line = current().line;
  ExpressionPtr first = parse_sum();
  ExpressionPtr node;
  const auto add = [&](Comparison comparison) {
    if (!node) node = make(ExpressionKind::kCompare, line, std::move(first));
    node->comparisons.push_back(comparison);
    node->operands.push_back(parse_sum());
  };
  while (true) {
    const auto found = std::find_if(kSymbols.begin(), kSymbols.end(), [&](const auto& s) { return current().is_operator(s.first); });
    if (found != kSymbols.end()) {
      take();
      add(found->second);
    } else if (skip_name("in")) {
      add(Comparison::kIn);
    } else if (current().is_name("not") && look().is_name("in")) {
      take();
      take();
      add(Comparison::kNotIn);
    } else {
      return node ? finish(std::move(node)) : std::move(first);
    }
  }
}

ExpressionPtr Parser::parse_sum() {
  ExpressionPtr left = parse_concatenation();
  while (current().is_operator("+") || current().is_operator("-")) {
    const Token& token = take();
    auto node = make(ExpressionKind::kBinary, token.line, std::move(left));
    node->binary_operator = token.text == "+" ? BinaryOperator::kAdd : BinaryOperator::kSubtract;
    node->operands.push_back(parse_concatenation());
    left = finish(std::move(node));
  }
  return left;
}

ExpressionPtr Parser::parse_concatenation() {
  ExpressionPtr first = parse_product();
  if (!current().is_operator("~")) return first;
  auto node = make(ExpressionKind::kConcatenate, current().line, std::move(first));
  while (skip_operator("~")) node->operands.push_back(parse_product());
  return finish(std::move(node));
}

ExpressionPtr Parser::parse_product() {
  static const std::vector<std::pair<std::string_view, BinaryOperator>> kSymbols = {{"*", BinaryOperator::kMultiply},
                                                                                    {"/", BinaryOperator::kDivide},
                                                                                    {"//", BinaryOperator::kFloorDivide},
                                                                                    {"%", BinaryOperator::kModulo}};
  ExpressionPtr left = parse_power();
  while (true) {
    const auto found = std::find_if(kSymbols.begin(), kSymbols.end(), [&](const auto& s) { return current().is_operator(s.first); });
    if (found == kSymbols.end()) return left;
    auto node = make(ExpressionKind::kBinary, take().line, std::move(left));
    node->binary_operator = found->second;
    node->operands.push_back(parse_power());
    left = finish(std::move(node));
  }
}

ExpressionPtr Parser::parse_power() {
  ExpressionPtr left = parse_unary();
  while (current().is_operator("**")) {
    auto node = make(ExpressionKind::kBinary, take().line, std::move(left));
    node->binary_operator = BinaryOperator::kPower;
    node->operands.push_back(parse_unary());
    left = finish(std::move(node));
  }
  return left;
}

ExpressionPtr Parser::parse_unary(bool with_filter) {
  Nesting nesting(*this);
  ExpressionPtr node;
  if (current().is_operator("-")) {
    const int line = take().line;
    node = finish(make(ExpressionKind::kNegate, line, parse_unary(false)));
  } else if (current().is_operator("+")) {
    const int line = take().line;
    node = finish(make(ExpressionKind::kPlus, line, parse_unary(false)));
  } else {
    node = parse_primary();
  }
  node = parse_postfix(std::move(node));
  return with_filter ? parse_filters_and_tests(std::move(node)) : std::move(node);
}

ExpressionPtr Parser::parse_primary(bool with_namespace) {
  const Token& token = current();
  if (token.kind == TokenKind::kName) {
    take();
    if (token.text == "true" || token.text == "True") return make_constant(Value::boolean(true), token.line);
    if (token.text == "false" || token.text == "False") return make_constant(Value::boolean(false), token.line);
    if (token.text == "none" || token.text == "None") return make_constant(Value::none(), token.line);
    if (with_namespace && skip_operator(".")) {
      auto node = make(ExpressionKind::kNamespaceReference, token.line);
      node->variable = token.text;
      node->name = expect_any_name();
      return node;
    }
    auto node = make(ExpressionKind::kName, token.line);
    node->name = token.text;
    return node;
  }
  if (token.kind == TokenKind::kString) {
    std::string text;
    while (current().kind == TokenKind::kString) text += take().text;
    return make_constant(make_string(nullptr, std::move(text)), token.line);
  }
  if (token.kind == TokenKind::kInteger) return make_constant(Value::integer(take().integer), token.line);
  if (token.kind == TokenKind::kFloat) return make_constant(Value::floating(take().floating), token.line);
  if (skip_operator("(")) {
    ExpressionPtr node = parse_tuple(true, {}, true);
    expect_operator(")");
    return node;
  }
  if (token.is_operator("[")) return parse_list();
  if (token.is_operator("{")) return parse_dict();
  fail("unexpected '" + describe(token) + "'");
}

ExpressionPtr Parser::parse_list() {
  auto node = make(ExpressionKind::kList, take().line);
  while (!current().is_operator("]")) {
    if (!node->operands.empty()) expect_operator(",");
    if (current().is_operator("]")) break;
    node->operands.push_back(parse_expression());
  }
  take();
  return finish(std::move(node));
}

ExpressionPtr Parser::parse_dict() {
  auto node = make(ExpressionKind::kDict, take().line);
  while (!current().is_operator("}")) {
    if (!node->operands.empty()) expect_operator(",");
    if (current().is_operator("}")) break;
    node->operands.push_back(parse_expression());
    expect_operator(":");
    node->operands.push_back(parse_expression());
  }
  take();
  return finish(std::move(node));
}

ExpressionPtr Parser::parse_postfix(ExpressionPtr node) {
  while (true) {
    if (current().is_operator(".") || current().is_operator("[")) {
      node = parse_subscript(std::move(node));
    } else if (current().is_operator("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExpressionPtr Parser::parse_filters_and_tests(ExpressionPtr node) {
  while (true) {
    if (skip_operator("|")) {
      node = parse_filter(std::move(node));
    } else if (skip_name("is")) {
      node = parse_test(std::move(node));
    } else if (current().is_operator("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExpressionPtr Parser::parse_filter(ExpressionPtr subject) {
  auto node = std::make_unique<Expression>(ExpressionKind::kFilter, current().line);
  node->operands.push_back(std::move(subject));
  node->name = expect_any_name();
  while (skip_operator(".")) node->name += "." + expect_any_name();
  if (current().is_operator("(")) node->arguments = parse_arguments();
  return finish(std::move(node));
}

ExpressionPtr Parser::parse_test(ExpressionPtr subject) {
  const int line = current().line;
  const bool negated = skip_name("not");
  auto node = make(ExpressionKind::kTest, line, std::move(subject));
  node->name = expect_any_name();
  while (skip_operator(".")) node->name += "." + expect_any_name();
  const Token& next = current();
  const bool starts_operand = next.kind == TokenKind::kName || next.kind == TokenKind::kString || next.kind == TokenKind::kInteger ||
                              next.kind == TokenKind::kFloat || next.is_operator("[") || next.is_operator("{");
  if (next.is_operator("(")) {
    node->arguments = parse_arguments();
  } else if (starts_operand && !next.is_name("else") && !next.is_name("or") && !next.is_name("and")) {
    if (next.is_name("is")) fail("You cannot chain multiple tests with is");
    node->arguments.positional.push_back(parse_postfix(parse_primary()));
  }
  ExpressionPtr result = finish(std::move(node));
  return negated ? finish(make(ExpressionKind::kNot, line, std::move(result))) : std::move(result);
}

ExpressionPtr Parser::parse_subscript(ExpressionPtr node) {
  const Token& token = take();
  if (token.text == ".") {
    const Token& attribute = take();
    if (attribute.kind == TokenKind::kName) {
      auto result = make(ExpressionKind::kAttribute, token.line, std::move(node));
      result->name = attribute.text;
      return finish(std::move(result));
    }
    if (attribute.kind != TokenKind::kInteger) fail("expected name or number");
    return finish(make(ExpressionKind::kItem, token.line, std::move(node), make_constant(Value::integer(attribute.integer), token.line)));
  }
  ExpressionPtr bounds[3];
  int colons = 0;
  while (!current().is_operator("]") && colons <= 2) {
    if (skip_operator(":")) {
      ++colons;
      continue;
    }
    if (bounds[std::min(colons, 2)]) break;
    bounds[std::min(colons, 2)] = parse_expression();
  }
  expect_operator("]");
  if (colons == 0) {
    if (!bounds[0]) fail("expected subscript expression");
    return finish(make(ExpressionKind::kItem, token.line, std::move(node), std::move(bounds[0])));
  }
  if (colons > 2) fail("a slice has at most two colons");
  auto result = make(ExpressionKind::kSlice, token.line, std::move(node));
  for (ExpressionPtr& bound : bounds) result->operands.push_back(std::move(bound));
  return finish(std::move(result));
}

ExpressionPtr Parser::parse_call(ExpressionPtr node) {
  auto result = make(ExpressionKind::kCall, current().line, std::move(node));
  result->arguments = parse_arguments();
  return finish(std::move(result));
}

Arguments Parser::parse_arguments() {
  Arguments arguments;
  expect_operator("(");
  bool needs_comma = false;
  const auto ensure = [&](bool valid) {
    if (!valid) fail("invalid syntax for function call expression");
  };
  while (!current().is_operator(")")) {
    if (needs_comma) {
      expect_operator(",");
      if (current().is_operator(")")) break;
    }
    if (skip_operator("*")) {
      ensure(!arguments.star && !arguments.double_star);
      arguments.star = parse_expression();
    } else if (skip_operator("**")) {
      ensure(!arguments.double_star);
      arguments.double_star = parse_expression();
    } else if (current().kind == TokenKind::kName && look().is_operator("=")) {
      ensure(!arguments.double_star);
      std::string name = take().text;
      take();
      for (const auto& [other, value] : arguments.keywords) {
        if (other == name) fail("keyword argument repeated: " + name);
      }
      arguments.keywords.emplace_back(std::move(name), parse_expression());
    } else {
      ensure(!arguments.star && !arguments.double_star && arguments.keywords.empty());
      arguments.positional.push_back(parse_expression());
    }
    needs_comma = true;
  }
  take();
  return arguments;
}

}  // namespace graft::jinja
