#include "data/templates/jinja/scopes.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>

namespace graft::jinja {
namespace {

struct FunctionScope {
  FunctionScope* outer = nullptr;
  int depth = 0;
  std::map<std::string, int> slots;  // by level and name, as the local variables of jinja's compiled function

  int slot_of(const std::string& identifier) { return slots.emplace(identifier, static_cast<int>(slots.size())).first->second; }
};

struct Reference {
  std::string identifier;
  FunctionScope* function = nullptr;
};

struct Load {
  enum class Kind { kParameter, kResolve, kAlias, kUndefined } kind = Kind::kUndefined;
  std::string name;     // kResolve
  Reference source;     // kAlias
};

// What one scope refers to, loads on entry and stores: jinja's Symbols. A branch of an if is a layer over the scope it stands in.
struct Symbols {
  Symbols(const Symbols* parent, FunctionScope* function)
      : parent(parent), function(function), level(parent ? parent->level + 1 : 0) {}
  static Symbols branch_of(const Symbols& base) {
    Symbols layer(base.parent, base.function);
    layer.base = &base;
    layer.level = base.level;
    return layer;
  }

  const Symbols* parent;
  const Symbols* base = nullptr;
  FunctionScope* function;
  int level;
  std::map<std::string, Reference> references;
  std::map<std::string, Load> loads;  // by identifier
  std::set<std::string> stores;

  const Reference* find_here(const std::string& name) const {
    for (const Symbols* layer = this; layer; layer = layer->base) {
      const auto found = layer->references.find(name);
      if (found != layer->references.end()) return &found->second;
    }
    return nullptr;
  }

  const Reference* find(const std::string& name) const {
    for (const Symbols* scope = this; scope; scope = scope->parent) {
      if (const Reference* found = scope->find_here(name)) return found;
    }
    return nullptr;
  }

  bool stored_here(const std::string& name) const {
    for (const Symbols* layer = this; layer; layer = layer->base) {
      if (layer->stores.count(name)) return true;
    }
    return false;
  }

  void define(const std::string& name, Load load) {
    const std::string identifier = std::to_string(level) + " " + name;
    references[name] = {identifier, function};
    loads[identifier] = std::move(load);
  }

  void load(const std::string& name) {
    if (!find(name)) define(name, {Load::Kind::kResolve, name, {}});
  }

  void declare_parameter(const std::string& name) {
    stores.insert(name);
    define(name, {Load::Kind::kParameter, {}, {}});
  }

  void store(const std::string& name) {
    stores.insert(name);
    if (find_here(name)) return;
    const Reference* outer = parent ? parent->find(name) : nullptr;
    define(name, outer ? Load{Load::Kind::kAlias, {}, *outer} : Load{});
  }

  // What the branches of an if store is, where no branch stored it, what it was outside.
  void merge_branches(const std::vector<Symbols>& branches) {
    std::set<std::string> stored;
    for (const Symbols& branch : branches) {
      for (const std::string& name : branch.stores) {
        if (!stored_here(name)) stored.insert(name);
      }
    }
    for (const Symbols& branch : branches) {
      for (const auto& [name, reference] : branch.references) references[name] = reference;
      for (const auto& [identifier, load] : branch.loads) loads[identifier] = load;
      stores.insert(branch.stores.begin(), branch.stores.end());
    }
    for (const std::string& name : stored) {
      const Reference* outer = parent ? parent->find(name) : nullptr;
      loads[find(name)->identifier] = outer ? Load{Load::Kind::kAlias, {}, *outer} : Load{Load::Kind::kResolve, name, {}};
    }
  }
};

template <typename Visit>
void visit_children(const Expression& node, const Visit& visit) {
  for (const auto& child : node.operands) {
    if (child) visit(*child);
  }
  for (const auto& child : node.arguments.positional) visit(*child);
  for (const auto& [name, child] : node.arguments.keywords) visit(*child);
  if (node.arguments.star) visit(*node.arguments.star);
  if (node.arguments.double_star) visit(*node.arguments.double_star);
}

// jinja's FrameSymbolVisitor: collects what the statements of one scope load and store, without entering inner scopes.
class Collector {
 public:
  explicit Collector(Symbols* symbols) : symbols_(symbols) {}

  void visit(const ExpressionPtr& node, bool as_parameter = false) {
    if (node) visit(*node, as_parameter);
  }

  void visit(const Expression& node, bool as_parameter = false) {
    if (node.kind == ExpressionKind::kNamespaceReference) return symbols_->load(node.variable);
    if (node.kind == ExpressionKind::kName) {
      if (as_parameter) return symbols_->declare_parameter(node.name);
      return node.store ? symbols_->store(node.name) : symbols_->load(node.name);
    }
    visit_children(node, [&](const Expression& child) { visit(child, as_parameter); });
  }

  void visit(const Body& body) {
    for (const auto& statement : body) visit(*statement);
  }

  void visit(const Statement& statement) {
    switch (statement.kind) {
      case StatementKind::kOutput:
      case StatementKind::kWith:
        for (const auto& output : statement.outputs) visit(output);
        break;
      case StatementKind::kIf: visit_if(statement); break;
      case StatementKind::kFor:
      case StatementKind::kFilterBlock:
      case StatementKind::kCallBlock: visit(statement.expression); break;
      case StatementKind::kSet:
        visit(statement.expression);
        visit(statement.targets[0]);
        break;
      case StatementKind::kSetBlock: visit(statement.targets[0]); break;
      case StatementKind::kMacro: symbols_->store(statement.function->name); break;
      case StatementKind::kGeneration:
      case StatementKind::kBreak:
      case StatementKind::kContinue: break;
    }
  }

 private:
  void visit_if(const Statement& statement) {
    visit(statement.expression);
    Symbols* const outer = symbols_;
    std::vector<Symbols> branches;
    for (const Body* body : {&statement.body, &statement.otherwise}) {
      Symbols branch = Symbols::branch_of(*outer);
      symbols_ = &branch;
      visit(*body);
      branches.push_back(std::move(branch));
    }
    symbols_ = outer;
    outer->merge_branches(branches);
  }

  Symbols* symbols_;
};

// Whether the body loads one of a macro's or loop's special names before it stores it, inner scopes included.
class UndeclaredFinder {
 public:
  explicit UndeclaredFinder(std::set<std::string> names) : names_(std::move(names)) {}
  const std::set<std::string>& found() const { return found_; }

  void visit(const Expression& node) {
    if (node.kind == ExpressionKind::kName) {
      if (node.store) {
        names_.erase(node.name);
      } else if (names_.count(node.name)) {
        found_.insert(node.name);
      }
    }
    visit_children(node, [&](const Expression& child) { visit(child); });
  }

  void visit(const Body& body) {
    for (const auto& statement : body) {
      for (const auto& target : statement->targets) visit(*target);
      if (statement->expression) visit(*statement->expression);
      for (const auto& output : statement->outputs) visit(*output);
      if (statement->filter_test) visit(*statement->filter_test);
      if (statement->function) {
        for (const std::string& name : statement->function->parameters) names_.erase(name);
        for (const auto& value : statement->function->defaults) visit(*value);
        visit(statement->function->body);
      }
      visit(statement->body);
      visit(statement->otherwise);
    }
  }

 private:
  std::set<std::string> names_, found_;
};

std::set<std::string> find_undeclared(const Body& body, std::set<std::string> names) {
  UndeclaredFinder finder(std::move(names));
  finder.visit(body);
  return finder.found();
}

class Resolver {
 public:
  void resolve_root(Function& root) {
    FunctionScope scope;
    Symbols symbols(nullptr, &scope);
    Collector(&symbols).visit(root.body);
    function_ = &scope;
    root.loads = loads_of(symbols);
    resolve(root.body, symbols);
    root.num_slots = static_cast<int>(scope.slots.size());
  }

 private:
  Slot slot_of(const Reference& reference) const {
    return {function_->depth - reference.function->depth, reference.function->slot_of(reference.identifier)};
  }

  ScopeLoads loads_of(const Symbols& symbols) const {
    ScopeLoads result;
    for (const auto& [identifier, load] : symbols.loads) {
      ScopeLoad entry;
      entry.slot = slot_of({identifier, symbols.function});
      switch (load.kind) {
        case Load::Kind::kParameter: continue;
        case Load::Kind::kResolve:
          entry.action = ScopeLoad::Action::kResolve;
          entry.name = load.name;
          break;
        case Load::Kind::kAlias:
          entry.action = ScopeLoad::Action::kCopy;
          entry.source = slot_of(load.source);
          break;
        case Load::Kind::kUndefined: break;
      }
      result.push_back(std::move(entry));
    }
    return result;
  }

  void resolve(const ExpressionPtr& node, const Symbols& symbols) {
    if (node) resolve(*node, symbols);
  }

  void resolve(Expression& node, const Symbols& symbols) {
    if (node.kind == ExpressionKind::kName) node.slot = slot_of(*symbols.find(node.name));
    if (node.kind == ExpressionKind::kNamespaceReference) node.slot = slot_of(*symbols.find(node.variable));
    visit_children(node, [&](const Expression& child) { resolve(const_cast<Expression&>(child), symbols); });
  }

  void resolve(Body& body, const Symbols& symbols) {
    for (const auto& statement : body) resolve(*statement, symbols);
  }

  void resolve(Statement& statement, const Symbols& symbols) {
    switch (statement.kind) {
      case StatementKind::kOutput:
        for (const auto& output : statement.outputs) resolve(output, symbols);
        break;
      case StatementKind::kIf:
        resolve(statement.expression, symbols);
        resolve(statement.body, symbols);
        resolve(statement.otherwise, symbols);
        break;
      case StatementKind::kFor: resolve_for(statement, symbols); break;
      case StatementKind::kSet:
        resolve(statement.expression, symbols);
        resolve(statement.targets[0], symbols);
        break;
      case StatementKind::kSetBlock:
      case StatementKind::kFilterBlock: resolve_captured(statement, symbols); break;
      case StatementKind::kWith: resolve_with(statement, symbols); break;
      case StatementKind::kMacro:
        resolve_function(*statement.function, symbols);
        statement.slot = slot_of(*symbols.find(statement.function->name));
        break;
      case StatementKind::kCallBlock:
        resolve_function(*statement.function, symbols);
        resolve(statement.expression, symbols);
        break;
      case StatementKind::kGeneration: resolve_function(*statement.function, symbols); break;
      case StatementKind::kBreak:
      case StatementKind::kContinue: break;
    }
  }

  void resolve_for(Statement& loop, const Symbols& outer) {
    Symbols inside(&outer, function_);
    const bool uses_loop = !find_undeclared(loop.body, {"loop"}).empty();
    if (uses_loop) inside.declare_parameter("loop");
    Collector collector(&inside);
    collector.visit(loop.targets[0], true);
    collector.visit(loop.body);
    if (loop.filter_test) {
      Symbols test(&outer, function_);
      test.level += 1000;  // its target is not the body's
      Collector test_collector(&test);
      test_collector.visit(loop.filter_target, true);
      test_collector.visit(loop.filter_test);
      loop.filter_loads = loads_of(test);
      resolve(loop.filter_target, test);
      resolve(loop.filter_test, test);
    }
    resolve(loop.expression, outer);
    resolve(loop.targets[0], inside);
    loop.loads = loads_of(inside);
    if (uses_loop) loop.loop_slot = slot_of(*inside.find("loop"));
    resolve(loop.body, inside);
    Symbols otherwise(&outer, function_);
    Collector(&otherwise).visit(loop.otherwise);
    loop.otherwise_loads = loads_of(otherwise);
    resolve(loop.otherwise, otherwise);
  }

  void resolve_captured(Statement& block, const Symbols& outer) {
    Symbols inside(&outer, function_);
    Collector collector(&inside);
    if (block.kind == StatementKind::kFilterBlock) {
      collector.visit(block.body);
      collector.visit(block.expression);
    } else {
      collector.visit(block.body);
    }
    block.loads = loads_of(inside);
    resolve(block.body, inside);
    // A set block's filter is resolved in the block's scope too, where its names may be unknown to the collector.
    if (block.kind == StatementKind::kSetBlock && block.expression) {
      Collector(&inside).visit(block.expression);
      block.loads = loads_of(inside);
    }
    resolve(block.expression, inside);
    for (const auto& target : block.targets) resolve(target, outer);
  }

  void resolve_with(Statement& block, const Symbols& outer) {
    Symbols inside(&outer, function_);
    Collector collector(&inside);
    for (const auto& target : block.targets) collector.visit(target, true);
    collector.visit(block.body);
    block.loads = loads_of(inside);
    for (const auto& value : block.outputs) resolve(value, outer);
    for (const auto& target : block.targets) resolve(target, inside);
    resolve(block.body, inside);
  }

  void resolve_function(Function& function, const Symbols& outer) {
    FunctionScope scope;
    scope.outer = function_;
    scope.depth = function_->depth + 1;
    Symbols inside(&outer, &scope);
    for (const std::string& name : function.parameters) inside.declare_parameter(name);
    const auto special = find_undeclared(function.body, {"caller", "kwargs", "varargs"});
    for (const std::string& name : function.parameters) function.caller_is_parameter |= name == "caller";
    const auto wants = [&](const char* name) {
      return special.count(name) && std::find(function.parameters.begin(), function.parameters.end(), name) == function.parameters.end();
    };
    const bool caller = wants("caller"), kwargs = wants("kwargs"), varargs = wants("varargs");
    if (caller) inside.declare_parameter("caller");
    if (kwargs) inside.declare_parameter("kwargs");
    if (varargs) inside.declare_parameter("varargs");
    Collector collector(&inside);
    for (const auto& value : function.defaults) collector.visit(value);
    collector.visit(function.body);

    FunctionScope* const outer_function = std::exchange(function_, &scope);
    const auto own_slot = [&](const std::string& name) { return slot_of(*inside.find(name)).index; };
    for (const std::string& name : function.parameters) function.parameter_slots.push_back(own_slot(name));
    if (caller) function.caller_slot = own_slot("caller");
    if (kwargs) function.kwargs_slot = own_slot("kwargs");
    if (varargs) function.varargs_slot = own_slot("varargs");
    function.loads = loads_of(inside);
    for (const auto& value : function.defaults) resolve(value, inside);
    resolve(function.body, inside);
    function.num_slots = static_cast<int>(scope.slots.size());
    function_ = outer_function;
  }

  FunctionScope* function_ = nullptr;
};

}  // namespace

void resolve_scopes(Template& parsed) { Resolver().resolve_root(parsed.root); }

}  // namespace graft::jinja
