#include <algorithm>

#include "data/templates/jinja/filters.h"
#include "data/templates/jinja/globals.h"
#include "data/templates/jinja/loop.h"
#include "data/templates/jinja/methods.h"
#include "data/templates/jinja/renderer.h"
#include "data/templates/jinja/repr.h"
#include "data/templates/jinja/tests.h"

namespace graft::jinja {

Value& Renderer::slot(const Slot& slot) {
  Activation* owner = activation_;
  for (int i = 0; i < slot.hops; ++i) owner = owner->outer;
  return owner->slots[static_cast<size_t>(slot.index)];
}

Value Renderer::evaluate_name(const Expression& node) {
  const Value& value = slot(node.slot);
  return value.is(Kind::kMissing) ? make_undefined(&budget_, node.name) : value;
}

Value Renderer::evaluate(const Expression& node) {
  budget_.pay();
  check_stack();
  line_ = node.line;
  const auto operand = [&](size_t i) { return evaluate(*node.operands[i]); };
  const auto bound = [&](size_t i) { return node.operands[i] ? evaluate(*node.operands[i]) : Value::none(); };
  const auto operands = [&] {
    std::vector<Value> values;
    values.reserve(node.operands.size());
    for (const auto& item : node.operands) values.push_back(evaluate(*item));
    return values;
  };
  switch (node.kind) {
    case ExpressionKind::kConstant: return node.constant;
    case ExpressionKind::kName: return evaluate_name(node);
    case ExpressionKind::kTuple: return make_tuple(&budget_, operands());
    case ExpressionKind::kList: return make_list(&budget_, operands());
    case ExpressionKind::kDict: return evaluate_dict(node);
    case ExpressionKind::kAttribute: {
      const Value owner = operand(0);
      line_ = node.line;
      return get_attribute(owner, node.name);
    }
    case ExpressionKind::kItem: {
      const Value owner = operand(0), index = operand(1);
      line_ = node.line;
      return get_item(owner, index);
    }
    case ExpressionKind::kSlice: {
      const Value owner = operand(0), start = bound(1), stop = bound(2), step = bound(3);
      line_ = node.line;
      return slice(budget_, owner, start, stop, step);
    }
    case ExpressionKind::kCall: {
      const Value callee = operand(0);
      CallArguments arguments = evaluate_arguments(node.arguments);
      line_ = node.line;
      return call(callee, arguments);
    }
    case ExpressionKind::kFilter: {
      const Value subject = operand(0);
      CallArguments arguments = evaluate_arguments(node.arguments);
      line_ = node.line;
      return apply_filter(node.name, subject, arguments);
    }
    case ExpressionKind::kTest: {
      const Value subject = operand(0);
      CallArguments arguments = evaluate_arguments(node.arguments);
      line_ = node.line;
      return Value::boolean(apply_test(node.name, subject, arguments));
    }
    case ExpressionKind::kNot: return Value::boolean(!truth(operand(0)));
    case ExpressionKind::kNegate: return negate(operand(0));
    case ExpressionKind::kPlus: return unary_plus(operand(0));
    case ExpressionKind::kBinary: {
      const Value left = operand(0), right = operand(1);
      line_ = node.line;
      return binary(budget_, node.binary_operator, left, right);
    }
    case ExpressionKind::kConcatenate: {
      std::string text;
      for (const Value& value : operands()) append_text(budget_, value, text);
      return string(std::move(text));
    }
    case ExpressionKind::kAnd: {
      Value left = operand(0);
      return truth(left) ? operand(1) : left;
    }
    case ExpressionKind::kOr: {
      Value left = operand(0);
      return truth(left) ? left : operand(1);
    }
    case ExpressionKind::kCompare: return evaluate_compare(node);
    case ExpressionKind::kConditional:
      if (truth(operand(0))) return operand(1);
      if (node.operands[2]) return operand(2);
      return make_undefined_hint(&budget_, fmt::format("the inline if-expression on line {} evaluated to false and no else "
                                                       "section was defined.", node.line));
    case ExpressionKind::kNamespaceReference: break;  // a target only
  }
  raise_python("TemplateRuntimeError", "not an expression");
}

Value Renderer::filter_text(const Expression* node, Value text) {
  if (!node) return text;
  const Value subject = filter_text(node->operands[0].get(), std::move(text));
  CallArguments arguments = evaluate_arguments(node->arguments);
  line_ = node->line;
  return apply_filter(node->name, subject, arguments);
}

Value Renderer::evaluate_dict(const Expression& node) {
  std::vector<std::pair<Value, Value>> entries;
  for (size_t i = 0; i < node.operands.size(); i += 2) {
    Value key = evaluate(*node.operands[i]);
    entries.emplace_back(std::move(key), evaluate(*node.operands[i + 1]));
  }
  return make_dict(&budget_, std::move(entries));
}

Value Renderer::evaluate_compare(const Expression& node) {
  Value left = evaluate(*node.operands[0]);
  for (size_t i = 0; i < node.comparisons.size(); ++i) {
    Value right = evaluate(*node.operands[i + 1]);
    line_ = node.line;
    if (!compare(node.comparisons[i], left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

bool Renderer::compare(Comparison comparison, const Value& a, const Value& b) {
  switch (comparison) {
    case Comparison::kEqual: return equal(&budget_, a, b);
    case Comparison::kNotEqual: return !equal(&budget_, a, b);
    case Comparison::kLess: return ordered(budget_, Order::kLess, a, b);
    case Comparison::kLessEqual: return ordered(budget_, Order::kLessEqual, a, b);
    case Comparison::kGreater: return ordered(budget_, Order::kGreater, a, b);
    case Comparison::kGreaterEqual: return ordered(budget_, Order::kGreaterEqual, a, b);
    case Comparison::kIn: return contains(budget_, b, a);
    case Comparison::kNotIn: return !contains(budget_, b, a);
  }
  return false;
}

CallArguments Renderer::evaluate_arguments(const Arguments& arguments) {
  CallArguments result;
  for (const auto& argument : arguments.positional) result.positional.push_back(evaluate(*argument));
  for (const auto& [name, argument] : arguments.keywords) result.keywords.emplace_back(name, evaluate(*argument));
  if (arguments.star) {
    const Value list = evaluate(*arguments.star);
    if (!is_iterable(list)) {
      raise_python("TypeError", "argument after * must be an iterable, not " + type_name(list));
    }
    const Next next = iterate(budget_, list);
    for (Value item; next(item);) result.positional.push_back(std::move(item));
  }
  if (arguments.double_star) {
    const Value mapping = evaluate(*arguments.double_star);
    if (!mapping.is(Kind::kDict)) raise_python("TypeError", "argument after ** must be a mapping, not " + type_name(mapping));
    for (const auto& [key, value] : mapping.dict().entries) {
      if (!key.is(Kind::kString)) raise_python("TypeError", "keywords must be strings");
      result.keywords.emplace_back(key.text(), value);
    }
  }
  return result;
}

Value Renderer::call(const Value& callee, CallArguments& arguments) {
  if (callee.is(Kind::kUndefined)) raise_undefined(callee);
  if (!callee.is(Kind::kCallable)) raise_python("TypeError", "'" + type_name(callee) + "' object is not callable");
  return callee.callable().call(*this, arguments);
}

Value Renderer::apply_filter(const std::string& name, const Value& subject, CallArguments& arguments) {
  const Filter filter = find_filter(name);
  if (!filter) raise_python("TemplateRuntimeError", "No filter named " + repr_text(name) + " found.");
  budget_.pay();
  return filter(*this, subject, arguments);
}

bool Renderer::apply_test(const std::string& name, const Value& subject, CallArguments& arguments) {
  const Test test = find_test(name);
  if (!test) raise_python("TemplateRuntimeError", "No test named " + repr_text(name) + " found.");
  return test(*this, subject, arguments);
}

Value Renderer::get_attribute(const Value& owner, const std::string& name) {
  if (auto attribute = python_attribute(*this, owner, name)) return *attribute;
  if (owner.is(Kind::kUndefined)) raise_undefined(owner);
  if (owner.is(Kind::kDict)) {
    if (const Value* found = owner.dict().find(name)) return *found;
  }
  return make_undefined(&budget_, name, owner);
}

Value Renderer::get_item(const Value& owner, const Value& index) {
  if (auto found = subscript(budget_, owner, index)) return *found;
  if (!index.is(Kind::kString)) {
    std::string shown;
    append_repr(budget_, index, shown);
    return make_undefined(&budget_, std::move(shown), owner, false);
  }
  if (auto attribute = python_attribute(*this, owner, index.text())) return *attribute;
  return make_undefined(&budget_, index.text(), owner);
}

}  // namespace graft::jinja
