// A parsed template. Built by the parser, names resolved to slots by resolve_scopes; immutable afterwards and shared between renderings.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "data/templates/jinja/operators.h"
#include "data/templates/jinja/value.h"

namespace graft::jinja {

struct Expression;
struct Statement;
using ExpressionPtr = std::unique_ptr<Expression>;
using StatementPtr = std::unique_ptr<Statement>;
using Body = std::vector<StatementPtr>;

// Where a variable lives: `hops` functions outwards (macros are closures), then that slot of its frame.
struct Slot {
  int hops = 0;
  int index = -1;
};

enum class ExpressionKind {
  kConstant,
  kName,         // load: slot
  kTuple,
  kList,
  kDict,         // operands: key, value, key, value, ...
  kAttribute,    // operands[0].name
  kItem,         // operands[0][operands[1]]
  kSlice,        // operands[0][operands[1]:operands[2]:operands[3]]; a missing bound is null
  kCall,         // operands[0](arguments)
  kFilter,       // operands[0] | name(arguments); operands[0] null in a filter block
  kTest,         // operands[0] is name(arguments)
  kNot,
  kNegate,
  kPlus,
  kBinary,
  kConcatenate,  // ~
  kAnd,
  kOr,
  kCompare,      // operands[0] comparisons[0] operands[1] comparisons[1] ...
  kConditional,  // operands[1] if operands[0] else operands[2] (may be null)
  kNamespaceReference  // only as a target: slot.name
};

enum class Comparison { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };

struct Arguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> keywords;
  ExpressionPtr star, double_star;
};

struct Expression {
  Expression(ExpressionKind kind, int line) : kind(kind), line(line) {}
  ExpressionKind kind;
  int line;
  int depth = 1;  // of the tree below
  std::string name;
  Value constant;
  std::vector<ExpressionPtr> operands;
  Arguments arguments;
  std::vector<Comparison> comparisons;
  BinaryOperator binary_operator = BinaryOperator::kAdd;
  Slot slot;
  std::string variable;      // kNamespaceReference: the namespace's name
  bool store = false;        // kName as a target
};

// What entering a scope does to one of its slots.
struct ScopeLoad {
  enum class Action { kResolve, kCopy, kClear } action = Action::kClear;
  Slot slot;          // always of this function
  std::string name;   // kResolve: looked up among the variables given to the template, then among the globals
  Slot source;        // kCopy
};
using ScopeLoads = std::vector<ScopeLoad>;

// A Python function of jinja's compiled template: the root, a macro, or the body of a call or generation block.
struct Function {
  std::string name;  // empty: a block's body
  std::vector<std::string> parameters;
  std::vector<ExpressionPtr> defaults;  // of the last parameters
  std::vector<int> parameter_slots;
  int caller_slot = -1, kwargs_slot = -1, varargs_slot = -1;  // where the body reads them; -1: it does not
  bool caller_is_parameter = false;
  ScopeLoads loads;
  int num_slots = 0;
  Body body;
};

enum class StatementKind { kOutput, kIf, kFor, kSet, kSetBlock, kMacro, kCallBlock, kGeneration, kFilterBlock, kWith, kBreak, kContinue };

struct Statement {
  Statement(StatementKind kind, int line) : kind(kind), line(line) {}
  StatementKind kind;
  int line;
  std::vector<ExpressionPtr> outputs;  // kOutput (text is a constant); kWith: the values
  std::vector<ExpressionPtr> targets;  // kFor, kSet, kSetBlock: one; kWith: as many as values
  ExpressionPtr expression;            // kIf: test; kFor: iterable; kSet: value; kSetBlock, kFilterBlock: filter or null; kCallBlock: call
  ExpressionPtr filter_test;           // kFor ... if
  ExpressionPtr filter_target;         // kFor ... if: a copy of the target, in the scope of the test
  Body body, otherwise;                // kIf: an elif is an if statement in `otherwise`
  ScopeLoads loads, otherwise_loads, filter_loads;
  Slot loop_slot;                      // kFor: where `loop` lives; index -1 when the body does not use it
  Slot slot;                           // kMacro: where the macro is stored
  std::unique_ptr<Function> function;  // kMacro, kCallBlock, kGeneration
};

struct Template {
  Function root;
  bool has_generation = false;
};

}  // namespace graft::jinja
