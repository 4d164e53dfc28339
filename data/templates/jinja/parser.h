// Tokens to syntax tree: the grammar of jinja2 3.1 with the loopcontrols extension and transformers' generation tag. Template inheritance
// and file access (extends, block, include, import) are errors: a chat template is one self-contained file.
#pragma once
#include "data/templates/jinja/ast.h"
#include "data/templates/jinja/lexer.h"

namespace graft::jinja {

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokenize(source)) {}
  Template parse();  // throws SyntaxError

 private:
  // Statements (parser_statements.cpp).
  Body parse_body(const std::vector<std::string_view>& end_tags);  // up to the tag, whose name is the current token then
  Body parse_block_body(const std::vector<std::string_view>& end_tags);   // the same after the opening tag's rest
  Body parse_closed_body(std::string_view end_tag);                        // and consumes the end tag
  StatementPtr parse_statement();
  StatementPtr parse_for();
  StatementPtr parse_if();
  StatementPtr parse_set();
  StatementPtr parse_macro();
  StatementPtr parse_call_block();
  StatementPtr parse_generation();
  StatementPtr parse_filter_block();
  StatementPtr parse_with();
  StatementPtr parse_print();
  StatementPtr parse_loop_control(StatementKind kind);
  void parse_signature(Function& function);
  ExpressionPtr parse_target(bool with_tuple, bool with_namespace, std::string_view end_name);
  void check_target(Expression& target);
  [[noreturn]] void fail_unclosed(const std::vector<std::string_view>& end_tags);

  // Expressions (parser_expressions.cpp), loosest first.
  ExpressionPtr parse_tuple(bool with_conditional, std::string_view end_name = {}, bool in_parentheses = false);
  ExpressionPtr parse_expression();
  ExpressionPtr parse_conditional();
  ExpressionPtr parse_or();
  ExpressionPtr parse_and();
  ExpressionPtr parse_not();
  ExpressionPtr parse_compare();
  ExpressionPtr parse_sum();
  ExpressionPtr parse_concatenation();
  ExpressionPtr parse_product();
  ExpressionPtr parse_power();
  ExpressionPtr parse_unary(bool with_filter = true);
  ExpressionPtr parse_primary(bool with_namespace = false);
  ExpressionPtr parse_postfix(ExpressionPtr node);
  ExpressionPtr parse_filters_and_tests(ExpressionPtr node);
  ExpressionPtr parse_filter(ExpressionPtr subject);
  ExpressionPtr parse_test(ExpressionPtr subject);
  ExpressionPtr parse_subscript(ExpressionPtr node);
  ExpressionPtr parse_call(ExpressionPtr node);
  ExpressionPtr parse_list();
  ExpressionPtr parse_dict();
  Arguments parse_arguments();
  bool is_tuple_end(std::string_view end_name) const;

  const Token& current() const { return tokens_[position_]; }
  const Token& look() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  const Token& take();
  bool skip_name(std::string_view name);
  bool skip_operator(std::string_view symbol);
  void expect_operator(std::string_view symbol);
  void expect_name(std::string_view name);
  std::string expect_any_name();
  void expect_kind(TokenKind kind);
  [[noreturn]] void fail(const std::string& message) const;
  ExpressionPtr finish(ExpressionPtr node);  // computes the depth and bounds it

  // Counts nested calls of the parser itself.
  struct Nesting {
    explicit Nesting(Parser& parser);
    ~Nesting() { --parser.nesting_; }
    Parser& parser;
  };

  std::vector<Token> tokens_;
  size_t position_ = 0;
  int nesting_ = 0;
  int loops_ = 0;  // open for statements of this function, for break and continue
  bool has_generation_ = false;
};

}  // namespace graft::jinja
