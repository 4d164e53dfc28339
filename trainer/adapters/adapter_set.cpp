#include "trainer/adapters/adapter_set.h"

#include <cmath>
#include <fnmatch.h>

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>

#include "kernels/common/error.h"

namespace graft {
namespace {

std::string last_name(const std::string& module) { return module.substr(module.rfind('.') + 1); }

bool matches(const std::string& module, const std::string& target) {
  return target == "all-linear" || last_name(module) == target || module == target || fnmatch(target.c_str(), module.c_str(), 0) == 0;
}

uint64_t name_key(const std::string& name, uint64_t seed) {   // FNV-1a, then SplitMix64's finaliser
  uint64_t key = 1469598103934665603u;
  for (const char c : name) key = (key ^ static_cast<uint8_t>(c)) * 1099511628211u;
  key += 0x9e3779b97f4a7c15u * (seed + 1);
  key = (key ^ key >> 30) * 0xbf58476d1ce4e5b9u;
  key = (key ^ key >> 27) * 0x94d049bb133111ebu;
  return key ^ key >> 31;
}

double uniform(uint64_t key, uint64_t index) {   // [0, 1)
  uint64_t bits = key + 0x9e3779b97f4a7c15u * (index + 1);
  bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9u;
  bits = (bits ^ bits >> 27) * 0x94d049bb133111ebu;
  return static_cast<double>((bits ^ bits >> 31) >> 11) * 0x1p-53;
}

}  // namespace

std::vector<std::string> matching_modules(const std::vector<std::string>& modules, const std::vector<std::string>& targets) {
  std::vector<bool> chosen(modules.size(), false);
  for (const auto& target : targets) {
    bool any = false;
    for (size_t i = 0; i < modules.size(); ++i) {
      if (matches(modules[i], target)) chosen[i] = any = true;
    }
    if (any) continue;
    std::vector<std::string> names;
    for (const auto& module : modules) {
      if (std::find(names.begin(), names.end(), last_name(module)) == names.end()) names.push_back(last_name(module));
    }
    fail("adapters", "expected adapter.targets to name linear layers, got \"{}\", which matches none — take all-linear, one of {}, or a glob over names such as {}",
         target, fmt::join(names, ", "), modules.empty() ? "" : modules.front());
  }
  std::vector<std::string> result;
  for (size_t i = 0; i < modules.size(); ++i) {
    if (chosen[i]) result.push_back(modules[i]);
  }
  return result;
}

double adapter_scale(const AdapterOptions& options) {
  const auto rank = static_cast<double>(options.rank);
  return options.scaling == "rslora" ? options.alpha / std::sqrt(rank) : options.alpha / rank;
}

AdapterSet::AdapterSet(Decoder& decoder, const AdapterOptions& options, uint64_t seed)
    : decoder_(decoder), by_layer_(decoder.num_layers()), lowest_layer_(decoder.num_layers()), scale_(adapter_scale(options)) {
  std::vector<std::string> modules;
  for (const auto* linear : decoder.linears()) modules.push_back(linear->module_name);
  const auto chosen = options.kind == "none" ? std::vector<std::string>() : matching_modules(modules, options.targets);
  int64_t offset = 0;
  for (int64_t layer = 0; layer < decoder.num_layers(); ++layer) {
    for (auto* linear : decoder.linears_of_layer(layer)) {
      if (std::find(chosen.begin(), chosen.end(), linear->module_name) == chosen.end()) continue;
      Adapter adapter;
      adapter.module_name = linear->module_name;
      adapter.rules = linear->rules;
      adapter.layer = layer;
      adapter.num_experts = linear->num_experts;
      adapter.parts = linear->parts();
      adapter.is_bank = linear->is_bank();
      if (adapter.is_bank && options.dropout > 0) {
        fail("adapters", "expected adapter.dropout 0 with adapters on experts, got {:g} ({}) — PEFT cannot express it either; set it to 0 or leave experts out of adapter.targets",
             options.dropout, adapter.module_name);
      }
      adapter.is_whole = options.kind == "full";
      if (adapter.is_whole && (adapter.is_bank || options.dropout > 0)) {
        fail("adapters", "expected adapter.kind full without {}, got {} — take kind: lora, or {}", adapter.is_bank ? "experts" : "dropout",
             adapter.is_bank ? adapter.module_name : fmt::format("adapter.dropout {:g}", options.dropout), adapter.is_bank ? "leave experts out of adapter.targets" : "set it to 0");
      }
      const auto own_rank = options.ranks.find(adapter.module_name);
      adapter.rank = own_rank == options.ranks.end() ? options.rank : own_rank->second;
      adapter.inputs = linear->inputs();
      adapter.outputs = linear->outputs();
      adapter.offset_a = offset;
      adapter.offset_b = offset + adapter.size_a();
      offset = adapter.offset_b + adapter.size_b();
      adapters_.push_back(adapter);
      by_layer_[layer].push_back(&adapters_.back());
      linears_.push_back(linear);
      lowest_layer_ = std::min(lowest_layer_, layer);
    }
  }
  parameters = at::zeros({offset}, at::kFloat);
  gradients = at::zeros({offset}, at::kDouble);
  for (size_t i = 0; i < adapters_.size(); ++i) {
    auto& adapter = adapters_[i];
    adapter.slot.scale = scale_;
    adapter.slot.dropout = options.dropout;
    const double bound = 1 / std::sqrt(static_cast<double>(adapter.inputs));
    linears_[i]->adapter = &adapter.slot;
    if (adapter.is_whole) {
      linears_[i]->weight.decode_rows(0, adapter.outputs, parameters.data_ptr<float>() + adapter.offset_b, adapter.inputs);
      continue;
    }
    const auto key = name_key(adapter.module_name + ".lora_A", seed);
    float* a = parameters.data_ptr<float>() + adapter.offset_a;
    for (int64_t e = 0; e < adapter.size_a(); ++e) a[e] = static_cast<float>((2 * uniform(key, e) - 1) * bound);
  }
  make_slots();
}

void AdapterSet::make_slots() {
  const auto view = [&](int64_t first, int64_t rows, int64_t columns) {
    return parameters.narrow(0, first, rows * columns).view({rows, columns}).detach().requires_grad_(true);
  };
  for (auto& adapter : adapters_) {
    if (adapter.is_whole) {
      adapter.slot.whole_OC = view(adapter.offset_b, adapter.outputs, adapter.inputs);
      read_in_place(adapter);
      continue;
    }
    adapter.slot.lora_a_RC = view(adapter.offset_a, adapter.num_experts * adapter.rank, adapter.inputs);
    adapter.slot.lora_b_OR = view(adapter.offset_b, adapter.num_experts * adapter.outputs, adapter.rank);
  }
}

// What products multiply with is the trained matrix itself, where it lies.
void AdapterSet::read_in_place(Adapter& adapter) {
  const auto values = adapter.slot.whole_OC.detach();
  const auto host = values.is_cpu() ? values : at::Tensor();
  FrozenWeight weight(TensorType::kF32, adapter.outputs, adapter.inputs, host.defined() ? static_cast<const std::byte*>(host.const_data_ptr()) : nullptr, nullptr);
  if (!host.defined()) weight.hold(values);
  adapter.slot.served.clear();
  adapter.slot.served.push_back(std::move(weight));
}

int64_t AdapterSet::append(const at::Tensor& values) {
  const int64_t offset = parameters.numel();
  parameters = at::cat({parameters, values});
  gradients = at::zeros({parameters.numel()}, at::kDouble);
  make_slots();
  return offset;
}

void AdapterSet::set_device(c10::Device device) {
  if (parameters.device() == device) return;
  parameters = parameters.to(device);
  gradients = gradients.to(device);
  make_slots();
}

AdapterSet::~AdapterSet() { set_enabled(false); }

void AdapterSet::set_enabled(bool enabled) {
  for (size_t i = 0; i < adapters_.size(); ++i) linears_[i]->adapter = enabled ? &adapters_[i].slot : nullptr;
}

void AdapterSet::set_scale(double factor) {
  for (auto& adapter : adapters_) adapter.slot.scale = scale_ * factor;
}

}  // namespace graft
