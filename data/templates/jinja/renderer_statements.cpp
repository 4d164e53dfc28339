#include "data/templates/jinja/globals.h"
#include "data/templates/jinja/loop.h"
#include "data/templates/jinja/python_text.h"
#include "data/templates/jinja/renderer.h"
#include "data/templates/jinja/repr.h"

namespace graft::jinja {
void Renderer::enter(const ScopeLoads& loads) {
  for (const ScopeLoad& load : loads) {
    Value value;
    if (load.action == ScopeLoad::Action::kResolve) value = resolve(load.name);
    if (load.action == ScopeLoad::Action::kCopy) value = slot(load.source);
    slot(load.slot) = std::move(value);
  }
}

void Renderer::leave(const ScopeLoads& loads) {
  for (const ScopeLoad& load : loads) slot(load.slot) = Value::missing();
}

Renderer::Flow Renderer::execute(const Body& body, std::string& out) {
  check_stack();
  for (const auto& statement : body) {
    const Flow flow = execute(*statement, out);
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Renderer::Flow Renderer::execute(const Statement& statement, std::string& out) {
  budget_.pay();
  line_ = statement.line;
  switch (statement.kind) {
    case StatementKind::kOutput:
      for (const auto& output : statement.outputs) {
        if (output->kind == ExpressionKind::kConstant) {
          append_text(budget_, output->constant, out);
        } else {
          append_text(budget_, evaluate(*output), out);
        }
      }
      return Flow::kNormal;
    case StatementKind::kIf: return execute(truth(evaluate(*statement.expression)) ? statement.body : statement.otherwise, out);
    case StatementKind::kFor: return execute_for(statement, out);
    case StatementKind::kSet: {
      const Value value = evaluate(*statement.expression);
      assign(*statement.targets[0], value);
      return Flow::kNormal;
    }
    case StatementKind::kSetBlock:
    case StatementKind::kFilterBlock: {
      enter(statement.loads);
      std::string text;
      const Flow flow = execute(statement.body, text);
      if (flow == Flow::kNormal) {
        Value value = string(std::move(text));
        value = filter_text(statement.expression.get(), std::move(value));
        if (statement.kind == StatementKind::kSetBlock) {
          assign(*statement.targets[0], value);
        } else {
          append_text(budget_, value, out);
        }
      }
      leave(statement.loads);
      return flow;
    }
    case StatementKind::kWith: {
      execute_with(statement);
      const Flow flow = execute(statement.body, out);
      leave(statement.loads);
      return flow;
    }
    case StatementKind::kMacro: slot(statement.slot) = make_macro(*statement.function); return Flow::kNormal;
    case StatementKind::kCallBlock: execute_call_block(statement, out); return Flow::kNormal;
    case StatementKind::kGeneration: execute_generation(statement, out); return Flow::kNormal;
    case StatementKind::kBreak: return Flow::kBreak;
    case StatementKind::kContinue: return Flow::kContinue;
  }
  return Flow::kNormal;
}

void Renderer::execute_with(const Statement& block) {
  enter(block.loads);
  for (size_t i = 0; i < block.targets.size(); ++i) assign(*block.targets[i], evaluate(*block.outputs[i]));
}

// The elements that pass the loop's test, one at a time: the test may depend on what the body did to the one before.
Next Renderer::filtered(const Statement& loop, Next source) {
  enter(loop.filter_loads);
  return [this, &loop, source = std::move(source)](Value& out) {
    while (source(out)) {
      assign(*loop.filter_target, out);
      if (truth(evaluate(*loop.filter_test))) return true;
    }
    return false;
  };
}

Renderer::Flow Renderer::execute_for(const Statement& loop, std::string& out) {
  const Value iterable = evaluate(*loop.expression);
  Next next = iterate(budget_, iterable);
  if (loop.filter_test) next = filtered(loop, std::move(next));
  Value context;
  if (loop.loop_slot.index >= 0) {
    context = make_loop(budget_, iterable, std::move(next));
    if (!loop.filter_test) context.loop().known_size = length_of(iterable);
    next = [&context](Value& item) { return context.loop().advance(item); };
  }
  // A filtering source refers to this activation, which a stored `loop` could outlive.
  struct Detach {
    Value& context;
    bool filtered;
    ~Detach() {
      if (filtered && context.is(Kind::kLoop)) context.loop().source = nullptr;
    }
  } detach{context, loop.filter_test != nullptr};

  bool empty = true;  // as jinja counts it: an iteration that ends in break or continue is none
  for (Value item; next(item);) {
    budget_.pay();
    assign(*loop.targets[0], item);
    if (loop.loop_slot.index >= 0) slot(loop.loop_slot) = context;
    enter(loop.loads);
    const Flow flow = execute(loop.body, out);
    if (flow == Flow::kBreak) break;
    if (flow == Flow::kNormal) empty = false;
  }
  leave(loop.loads);
  if (!empty || loop.otherwise.empty()) return Flow::kNormal;
  enter(loop.otherwise_loads);
  const Flow flow = execute(loop.otherwise, out);
  leave(loop.otherwise_loads);
  return flow;
}

void Renderer::assign(const Expression& target, const Value& value) {
  if (target.kind == ExpressionKind::kName) {
    slot(target.slot) = value;
    return;
  }
  if (target.kind == ExpressionKind::kNamespaceReference) {
    line_ = target.line;
    const Value space = slot(target.slot);
    if (!space.is(Kind::kNamespace)) raise_python("TemplateRuntimeError", "cannot assign attribute on non-namespace object");
    check_namespace_name(target.name);
    if (Value* present = space.name_space().find(target.name)) {
      *present = value;
    } else {
      budget_.allocate(sizeof(Value) + target.name.size());
      space.name_space().attributes.emplace_back(target.name, value);
    }
    return;
  }
  if (!is_iterable(value)) raise_python("TypeError", "cannot unpack non-iterable " + type_name(value) + " object");
  const Next next = iterate(budget_, value);
  std::vector<Value> items;
  const size_t wanted = target.operands.size();
  for (Value item; items.size() <= wanted && next(item);) items.push_back(std::move(item));
  if (items.size() > wanted) raise_python("ValueError", fmt::format("too many values to unpack (expected {})", wanted));
  if (items.size() < wanted) {
    raise_python("ValueError", fmt::format("not enough values to unpack (expected {}, got {})", wanted, items.size()));
  }
  for (size_t i = 0; i < wanted; ++i) assign(*target.operands[i], items[i]);
}

void Renderer::execute_call_block(const Statement& block, std::string& out) {
  const Expression& call_node = *block.expression;
  const Value caller = make_macro(*block.function);
  const Value callee = evaluate(*call_node.operands[0]);
  CallArguments arguments = evaluate_arguments(call_node.arguments);
  arguments.keywords.emplace_back("caller", caller);
  append_text(budget_, call(callee, arguments), out);
}

void Renderer::execute_generation(const Statement& block, std::string& out) {
  activation_->captured = true;
  CallArguments none;
  const Value text = call_macro(*block.function, *activation_, none);
  // As transformers measures it: from what the root has written so far, in code points.
  budget_.pay_for_text(root_output_->size());
  const size_t begin = static_cast<size_t>(count_code_points(*root_output_));
  generation_.push_back({begin, begin + static_cast<size_t>(length_in_code_points(text))});
  append_text(budget_, text, out);
}

}  // namespace graft::jinja
