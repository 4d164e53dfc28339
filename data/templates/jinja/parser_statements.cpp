#include <algorithm>

#include "data/templates/jinja/parser.h"

namespace graft::jinja {

const Token& Parser::take() {
  const Token& token = tokens_[position_];
  if (position_ + 1 < tokens_.size()) ++position_;
  return token;
}

bool Parser::skip_name(std::string_view name) {
  if (!current().is_name(name)) return false;
  take();
  return true;
}

bool Parser::skip_operator(std::string_view symbol) {
  if (!current().is_operator(symbol)) return false;
  take();
  return true;
}

void Parser::expect_operator(std::string_view symbol) {
  if (!skip_operator(symbol)) fail(fmt::format("expected '{}', got '{}'", symbol, describe(current())));
}

void Parser::expect_name(std::string_view name) {
  if (!skip_name(name)) fail(fmt::format("expected '{}', got '{}'", name, describe(current())));
}

std::string Parser::expect_any_name() {
  if (current().kind != TokenKind::kName) fail("expected a name, got '" + describe(current()) + "'");
  return take().text;
}

void Parser::expect_kind(TokenKind kind) {
  if (current().kind != kind) fail(fmt::format("expected '{}', got '{}'", describe({kind}), describe(current())));
  take();
}

void Parser::fail(const std::string& message) const { throw SyntaxError{message, current().line}; }

Template Parser::parse() {
  Template result;
  result.root.name = "root";
  result.root.body = parse_body({});
  result.has_generation = has_generation_;
  return result;
}

Body Parser::parse_body(const std::vector<std::string_view>& end_tags) {
  Nesting nesting(*this);
  Body body;
  const auto output = [&]() -> std::vector<ExpressionPtr>& {
    if (body.empty() || body.back()->kind != StatementKind::kOutput) {
      body.push_back(std::make_unique<Statement>(StatementKind::kOutput, current().line));
    }
    return body.back()->outputs;
  };
  while (current().kind != TokenKind::kEnd) {
    if (current().kind == TokenKind::kData) {
      auto text = std::make_unique<Expression>(ExpressionKind::kConstant, current().line);
      text->constant = make_string(nullptr, take().text);
      output().push_back(std::move(text));
    } else if (current().kind == TokenKind::kVariableBegin) {
      take();
      output().push_back(parse_tuple(true));
      expect_kind(TokenKind::kVariableEnd);
    } else {
      expect_kind(TokenKind::kBlockBegin);
      const Token& tag = current();
      if (tag.kind == TokenKind::kName && std::find(end_tags.begin(), end_tags.end(), tag.text) != end_tags.end()) return body;
      body.push_back(parse_statement());
      expect_kind(TokenKind::kBlockEnd);
    }
  }
  if (!end_tags.empty()) fail_unclosed(end_tags);
  return body;
}

void Parser::fail_unclosed(const std::vector<std::string_view>& end_tags) {
  std::string expected;
  for (const std::string_view tag : end_tags) expected += fmt::format("{}'{}'", expected.empty() ? "" : " or ", tag);
  fail("Unexpected end of template. Jinja was looking for the following tags: " + expected);
}

Body Parser::parse_block_body(const std::vector<std::string_view>& end_tags) {
  skip_operator(":");
  expect_kind(TokenKind::kBlockEnd);
  return parse_body(end_tags);
}

Body Parser::parse_closed_body(std::string_view end_tag) {
  Body body = parse_block_body({end_tag});
  take();
  return body;
}

StatementPtr Parser::parse_statement() {
  const Token& tag = current();
  if (tag.kind != TokenKind::kName) fail("tag name expected");
  if (tag.text == "for") return parse_for();
  if (tag.text == "if") return parse_if();
  if (tag.text == "set") return parse_set();
  if (tag.text == "macro") return parse_macro();
  if (tag.text == "call") return parse_call_block();
  if (tag.text == "generation") return parse_generation();
  if (tag.text == "filter") return parse_filter_block();
  if (tag.text == "with") return parse_with();
  if (tag.text == "print") return parse_print();
  if (tag.text == "break") return parse_loop_control(StatementKind::kBreak);
  if (tag.text == "continue") return parse_loop_control(StatementKind::kContinue);
  for (const std::string_view refused : {"extends", "block", "include", "import", "from", "autoescape"}) {
    if (tag.text == refused) fail(fmt::format("the tag '{}' is not supported: a chat template is one self-contained file", refused));
  }
  fail("Encountered unknown tag '" + tag.text + "'.");
}

StatementPtr Parser::parse_loop_control(StatementKind kind) {
  if (loops_ == 0) fail("'" + current().text + "' outside loop");
  return std::make_unique<Statement>(kind, take().line);
}

StatementPtr Parser::parse_for() {
  auto node = std::make_unique<Statement>(StatementKind::kFor, take().line);
  const size_t target_position = position_;
  node->targets.push_back(parse_target(true, false, "in"));
  expect_name("in");
  node->expression = parse_tuple(false, "recursive");
  if (skip_name("if")) {
    node->filter_test = parse_expression();
    const size_t after = std::exchange(position_, target_position);  // the test has its own copy of the target
    node->filter_target = parse_target(true, false, "in");
    position_ = after;
  }
  if (current().is_name("recursive")) fail("recursive loops are not supported");
  ++loops_;
  node->body = parse_block_body({"endfor", "else"});
  --loops_;
  if (take().text == "else") node->otherwise = parse_closed_body("endfor");
  return node;
}

StatementPtr Parser::parse_if() {
  auto root = std::make_unique<Statement>(StatementKind::kIf, take().line);
  Statement* node = root.get();
  int branches = 0;
  while (true) {
    node->expression = parse_tuple(false);
    node->body = parse_block_body({"elif", "else", "endif"});
    const Token& tag = take();
    if (tag.text == "elif") {
      if (++branches > 400) fail("more than 400 elif branches");
      node->otherwise.push_back(std::make_unique<Statement>(StatementKind::kIf, tag.line));
      node = node->otherwise.back().get();
      continue;
    }
    if (tag.text == "else") node->otherwise = parse_closed_body("endif");
    return root;
  }
}

StatementPtr Parser::parse_set() {
  auto node = std::make_unique<Statement>(StatementKind::kSet, take().line);
  node->targets.push_back(parse_target(true, true, {}));
  if (skip_operator("=")) {
    node->expression = parse_tuple(true);
    return node;
  }
  node->kind = StatementKind::kSetBlock;
  while (skip_operator("|")) node->expression = parse_filter(std::move(node->expression));
  node->body = parse_closed_body("endset");
  return node;
}

void Parser::parse_signature(Function& function) {
  expect_operator("(");
  while (!current().is_operator(")")) {
    if (!function.parameters.empty()) expect_operator(",");
    function.parameters.push_back(parse_target(false, false, {})->name);
    if (skip_operator("=")) {
      function.defaults.push_back(parse_expression());
    } else if (!function.defaults.empty()) {
      fail("non-default argument follows default argument");
    }
  }
  take();
}

StatementPtr Parser::parse_macro() {
  auto node = std::make_unique<Statement>(StatementKind::kMacro, take().line);
  node->function = std::make_unique<Function>();
  node->function->name = parse_target(false, false, {})->name;
  parse_signature(*node->function);
  const int outer_loops = std::exchange(loops_, 0);
  node->function->body = parse_closed_body("endmacro");
  loops_ = outer_loops;
  return node;
}

StatementPtr Parser::parse_call_block() {
  auto node = std::make_unique<Statement>(StatementKind::kCallBlock, take().line);
  node->function = std::make_unique<Function>();
  if (current().is_operator("(")) parse_signature(*node->function);
  node->expression = parse_expression();
  if (node->expression->kind != ExpressionKind::kCall) fail("expected call");
  const int outer_loops = std::exchange(loops_, 0);
  node->function->body = parse_closed_body("endcall");
  loops_ = outer_loops;
  return node;
}

StatementPtr Parser::parse_generation() {
  auto node = std::make_unique<Statement>(StatementKind::kGeneration, take().line);
  node->function = std::make_unique<Function>();
  const int outer_loops = std::exchange(loops_, 0);
  node->function->body = parse_closed_body("endgeneration");
  loops_ = outer_loops;
  has_generation_ = true;
  return node;
}

StatementPtr Parser::parse_filter_block() {
  auto node = std::make_unique<Statement>(StatementKind::kFilterBlock, take().line);
  do {
    node->expression = parse_filter(std::move(node->expression));
  } while (skip_operator("|"));
  node->body = parse_closed_body("endfilter");
  return node;
}

StatementPtr Parser::parse_with() {
  auto node = std::make_unique<Statement>(StatementKind::kWith, take().line);
  while (current().kind != TokenKind::kBlockEnd) {
    if (!node->targets.empty()) expect_operator(",");
    node->targets.push_back(parse_target(true, false, {}));
    expect_operator("=");
    node->outputs.push_back(parse_expression());
  }
  node->body = parse_closed_body("endwith");
  return node;
}

StatementPtr Parser::parse_print() {
  auto node = std::make_unique<Statement>(StatementKind::kOutput, take().line);
  while (current().kind != TokenKind::kBlockEnd) {
    if (!node->outputs.empty()) expect_operator(",");
    node->outputs.push_back(parse_expression());
  }
  return node;
}

void Parser::check_target(Expression& target) {
  if (target.kind == ExpressionKind::kNamespaceReference) return;
  if (target.kind == ExpressionKind::kTuple) {
    for (const auto& item : target.operands) check_target(*item);
    return;
  }
  if (target.kind != ExpressionKind::kName) fail("can't assign to this expression");
  target.store = true;
}

ExpressionPtr Parser::parse_target(bool with_tuple, bool with_namespace, std::string_view end_name) {
  if (!with_tuple) {
    auto node = std::make_unique<Expression>(ExpressionKind::kName, current().line);
    node->name = expect_any_name();
    for (const std::string_view constant : {"true", "false", "none", "True", "False", "None"}) {
      if (node->name == constant) fail("can't assign to a constant");
    }
    node->store = true;
    return node;
  }
  const int line = current().line;
  std::vector<ExpressionPtr> items;
  bool is_tuple = false;
  while (true) {
    if (!items.empty()) expect_operator(",");
    if (is_tuple_end(end_name)) break;
    items.push_back(parse_primary(with_namespace));
    if (!current().is_operator(",")) break;
    is_tuple = true;
  }
  if (items.empty()) fail("Expected an expression, got '" + describe(current()) + "'");
  ExpressionPtr target = std::move(items[0]);
  if (is_tuple) {
    items[0] = std::move(target);
    target = std::make_unique<Expression>(ExpressionKind::kTuple, line);
    target->operands = std::move(items);
    target = finish(std::move(target));
  }
  check_target(*target);
  return target;
}

}  // namespace graft::jinja
