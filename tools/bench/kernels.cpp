// Operators of graft beside ATen's on one device: see tools/bench/kernels.
//
// Ours and ATen's alternate; times are medians with the quartiles around them. Memory: by how much the first call
// raises the process's resident peak (CPU), libraries' own buffers included. Error: of ours against the reference in double, relative to its norm.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iostream>
#include <malloc.h>
#include <numeric>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kernels/attention/attention.h"
#include "kernels/experts/experts.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "kernels/lora_linear/lora_linear.h"
#include "kernels/rms_norm/rms_norm.h"
#include "trainer/runs/cuda_module.h"

namespace graft {
namespace {

using at::Tensor;
using Json = nlohmann::ordered_json;

struct Setting {
  at::Device device = at::kCPU;
  at::ScalarType type = at::kBFloat16;
  int rounds = 7;
  bool errors = true;
};

Tensor random(at::IntArrayRef sizes, const Setting& setting, uint64_t seed, double scale = 1) {
  return (at::randn(sizes, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions(at::kFloat)) * scale).to(setting.device, setting.type);
}

void synchronise(const Setting& setting) {
  if (setting.device.is_cuda()) at::zeros({1}, at::TensorOptions(setting.device)).item<float>();   // one stream: this waits for all before
}

int64_t resident_peak() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) * 1024;
  }
  return 0;
}

// Bytes beyond what was there before.
int64_t peak_of(const std::function<void()>& call) {
  malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << "5\n";
  const int64_t before = resident_peak();
  call();
  return resident_peak() - before;
}

struct Timing {
  double median = 0, low = 0, high = 0;
  int64_t peak = 0;
  Json json() const { return {{"seconds", median}, {"from", low}, {"to", high}, {"peak_bytes", peak}}; }
};

Timing timing_of(std::vector<double> seconds, int64_t peak) {
  std::sort(seconds.begin(), seconds.end());
  return {seconds[seconds.size() / 2], seconds[seconds.size() / 4], seconds[seconds.size() * 3 / 4], peak};
}

// The first call of each gives its peak: later ones would find scratch that is kept.
std::pair<Timing, Timing> alternate(const Setting& setting, const std::function<void()>& ours, const std::function<void()>& theirs) {
  std::vector<double> times[2];
  int64_t peaks[2];
  const std::function<void()>* calls[2] = {&ours, &theirs};
  for (int which = 0; which < 2; ++which) {
    peaks[which] = peak_of(*calls[which]);
  }
  const int repeats = setting.device.is_cuda() ? 10 : 1;   // on a GPU calls overlap the launches of those before
  for (int round = 0; round < setting.rounds; ++round) {
    for (int which = 0; which < 2; ++which) {
      synchronise(setting);
      const auto begin = std::chrono::steady_clock::now();
      for (int repeat = 0; repeat < repeats; ++repeat) (*calls[which])();
      synchronise(setting);
      times[which].push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / repeats);
    }
  }
  return {timing_of(times[0], peaks[0]), timing_of(times[1], peaks[1])};
}

double relative_error(const Tensor& got, const Tensor& expected) {
  return ((got.to(at::kCPU, at::kDouble) - expected.to(at::kCPU, at::kDouble)).norm() / expected.to(at::kCPU, at::kDouble).norm()).item<double>();
}

// flops: of one forward pass and its backward. bytes: what both must at least move, 0 where arithmetic takes longer.
void report(Json& results, const std::string& name, const Setting& setting, double flops, const std::pair<Timing, Timing>& times, double error, double bytes = 0) {
  const auto& [ours, theirs] = times;
  Json row = {{"operator", name}, {"device", setting.device.str()}, {"type", c10::toString(setting.type)}, {"ours", ours.json()}, {"aten", theirs.json()}, {"speed_ratio", theirs.median / ours.median},
              {"memory_ratio", static_cast<double>(ours.peak) / static_cast<double>(std::max<int64_t>(1, theirs.peak))}, {"gflops", flops / ours.median / 1e9}, {"gigabytes_per_s", bytes / ours.median / 1e9}, {"error", error}};
  std::printf("%-44s %9.2f ms [%.2f, %.2f]  ATen %9.2f ms  %5.2fx  memory %7.1f of %7.1f MiB (%.2f)  %7.1f GFLOP/s  %6.1f GB/s  error %.1e\n", name.c_str(), ours.median * 1e3, ours.low * 1e3, ours.high * 1e3,
              theirs.median * 1e3, theirs.median / ours.median, static_cast<double>(ours.peak) / (1 << 20), static_cast<double>(theirs.peak) / (1 << 20), row["memory_ratio"].get<double>(),
              flops / ours.median / 1e9, bytes / ours.median / 1e9, error);
  std::fflush(stdout);
  results.push_back(std::move(row));
}

Tensor gradient_of(const Tensor& x, const std::function<Tensor(const Tensor&)>& function, const Tensor& weight) {
  const auto leaf = x.detach().requires_grad_();
  function(leaf).backward(weight);
  return leaf.grad();
}

// Documents of equal length; ATen's attention takes them as a batch.
void bench_attention(Json& results, const Setting& setting, int64_t documents, int64_t length, int64_t heads, int64_t kv_heads, int64_t size) {
  const int64_t tokens = documents * length;
  AttentionOptions options;
  options.num_heads = heads;
  options.num_kv_heads = kv_heads;
  options.head_size = size;
  options.scale = 1 / std::sqrt(static_cast<double>(size));
  std::vector<int32_t> offsets, positions;
  for (int64_t d = 0; d <= documents; ++d) offsets.push_back(static_cast<int32_t>(d * length));
  for (int64_t n = 0; n < tokens; ++n) positions.push_back(static_cast<int32_t>(n % length));
  const auto qkv = random({tokens, (heads + 2 * kv_heads) * size}, setting, 1), weight = random({tokens, heads * size}, setting, 2);
  const auto ours = [&](const Tensor& x) { return packed_attention(x, options, positions, offsets); };
  const auto theirs = [&](const Tensor& x) {
    const auto parts = x.view({documents, length, heads + 2 * kv_heads, size}).transpose(1, 2).split_with_sizes({heads, kv_heads, kv_heads}, 1);
    const auto repeated = [&](const Tensor& kv) { return kv.repeat_interleave(heads / kv_heads, 1); };
    return at::scaled_dot_product_attention(parts[0], repeated(parts[1]), repeated(parts[2]), {}, 0, true, options.scale).transpose(1, 2).reshape({tokens, heads * size});
  };
  // Of a GPU: FlashAttention as LibTorch has it, over the same packed documents.
  const auto sequences = at::tensor(offsets, at::kInt).to(setting.device);
  const auto flash = [&] {
    const auto parts = qkv.view({tokens, heads + 2 * kv_heads, size}).split_with_sizes({heads, kv_heads, kv_heads}, 1);
    const auto [out, log_sums, state, unused, mask] = at::_flash_attention_forward(parts[0], parts[1], parts[2], sequences, sequences, length, length, 0, true, false, options.scale);
    at::_flash_attention_backward(weight.view({tokens, heads, size}), parts[0], parts[1], parts[2], out, log_sums, sequences, sequences, length, length, 0, true, state, unused, options.scale);
  };
  const auto name = fmt::format("attention {} x {}, {}/{} heads of {}", documents, length, heads, kv_heads, size);
  const double flops = 3.5 * 2 * static_cast<double>(documents * length * length * heads * size);
  Tensor got;
  const std::function<void()> our_gradient = [&] { got = gradient_of(qkv, ours, weight); };
  if (setting.device.is_cuda()) {
    for (const bool same_bits : {true, false}) {   // ours always gives the same bits
      at::globalContext().setDeterministicAlgorithms(same_bits, false);
      report(results, name + (same_bits ? "" : ", peer with atomics"), setting, flops, alternate(setting, our_gradient, flash), NAN);
    }
    at::globalContext().setDeterministicAlgorithms(true, false);
    return;
  }
  const auto times = alternate(setting, our_gradient, [&] { gradient_of(qkv, theirs, weight); });
  double error = NAN;
  if (setting.errors) {
    error = relative_error(got, gradient_of(qkv.to(at::kDouble), [&](const Tensor& x) { return packed_attention_reference(x, options, positions, offsets); }, weight.to(at::kDouble)));
  }
  report(results, name, setting, flops, times, error);
}

void bench_rms_norm(Json& results, const Setting& setting, int64_t rows, int64_t width) {
  const auto x = random({rows, width}, setting, 1), gradient = random({rows, width}, setting, 2);
  const auto weight = random({width}, {setting.device, at::kFloat}, 3);
  const auto ours = [&](const Tensor& input) { return rms_norm(input, weight, 1e-6); };
  const auto theirs = [&, narrow = weight.to(setting.type)](const Tensor& input) { return at::rms_norm(input, {width}, narrow, 1e-6); };
  Tensor got;
  const auto times = alternate(setting, [&] { got = gradient_of(x, ours, gradient); }, [&] { gradient_of(x, theirs, gradient); });
  const double error = relative_error(got, gradient_of(x.to(at::kDouble), [&](const Tensor& input) { return rms_norm_reference(input, weight, 1e-6); }, gradient.to(at::kDouble)));
  report(results, fmt::format("rms_norm {} x {}", rows, width), setting, 0, times, error, 5.0 * static_cast<double>(rows * width) * static_cast<double>(x.element_size()));
}

FrozenWeight frozen(const Tensor& matrix) {
  const auto dense = matrix.to(at::kCPU).contiguous();
  return {dense.scalar_type() == at::kFloat ? TensorType::kF32 : TensorType::kBF16, dense.size(0), dense.size(1), static_cast<const std::byte*>(dense.const_data_ptr()),
          std::make_shared<const Tensor>(dense)};
}

void bench_cross_entropy(Json& results, const Setting& setting, int64_t rows, int64_t width, int64_t vocabulary) {
  const auto hidden = random({rows, width}, setting, 1), matrix = random({vocabulary, width}, setting, 2, 0.02);
  auto head = frozen(matrix);
  if (setting.device.is_cuda()) head.to_device(setting.device, setting.type);
  std::vector<int32_t> labels;
  for (int64_t i = 0; i < rows; ++i) labels.push_back(static_cast<int32_t>(i * 7919 % vocabulary));
  const auto labels_M = at::tensor(at::ArrayRef<int32_t>(labels), at::kInt).to(setting.device, at::kLong);
  CrossEntropyOptions options;
  options.gradient_scale = 1.0 / static_cast<double>(rows);
  options.buffer_bytes = default_loss_buffer_bytes(setting.device.is_cpu());
  Tensor got;
  const auto times = alternate(
      setting, [&] { got = linear_cross_entropy(hidden, LinearHead(head), labels, {}, options).gradient_MC; },
      [&] { gradient_of(hidden, [&](const Tensor& x) { return at::cross_entropy_loss(at::matmul(x, matrix.t()).to(at::kFloat), labels_M); }, at::ones({}, at::TensorOptions(setting.device))); });
  double error = NAN;
  if (setting.errors) {
    error = relative_error(got, gradient_of(hidden.to(at::kCPU, at::kDouble), [&](const Tensor& x) { return at::cross_entropy_loss(at::matmul(x, matrix.to(at::kCPU, at::kDouble).t()), labels_M.to(at::kCPU)); },
                                            at::ones({}, at::kDouble)));
  }
  report(results, fmt::format("linear_cross_entropy {} x {} x {}", rows, width, vocabulary), setting, 4.0 * static_cast<double>(rows * width * vocabulary), times, error);
}

// Against the frozen product alone, forward and dx: what LoRA costs on top.
void bench_lora_linear(Json& results, const Setting& setting, int64_t rows, int64_t inputs, int64_t outputs, int64_t rank) {
  const auto x = random({rows, inputs}, setting, 1), gradient = random({rows, outputs}, setting, 2), matrix = random({outputs, inputs}, setting, 3, 0.02);
  auto weight = frozen(matrix);
  if (setting.device.is_cuda()) weight.to_device(setting.device, setting.type);
  LinearPart part;
  part.weight = &weight;
  part.lora_a_RC = random({rank, inputs}, {setting.device, at::kFloat}, 4, 0.05).requires_grad_();
  part.lora_b_OR = random({outputs, rank}, {setting.device, at::kFloat}, 5, 0.05).requires_grad_();
  part.scale = 2;
  Tensor got;
  const auto times = alternate(setting, [&] { got = gradient_of(x, [&](const Tensor& input) { return lora_linear(input, {}, {part}); }, gradient); },
                               [&] { gradient_of(x, [&](const Tensor& input) { return at::matmul(input, matrix.t()); }, gradient); });
  double error = NAN;
  if (setting.errors) error = relative_error(got, gradient_of(x.to(at::kFloat), [&](const Tensor& input) { return lora_linear_reference(input, {}, {part}); }, gradient.to(at::kFloat)));
  report(results, fmt::format("lora_linear {} x {} x {}, rank {}", rows, inputs, outputs, rank), setting, 4.0 * static_cast<double>(rows * (inputs * outputs + rank * (inputs + outputs) * 3 / 2)), times, error);
}

// A mixture's layer with an adapter on each expert, tokens spread evenly; ATen: the reference, an expert after the other.
void bench_experts(Json& results, const Setting& setting, int64_t tokens, int64_t hidden, int64_t width, int64_t num_experts, int64_t chosen, int64_t rank) {
  std::vector<FrozenWeight> weights;
  const auto bank = [&](int64_t outputs, int64_t inputs, uint64_t seed) {
    ExpertBank of;
    of.num_experts = num_experts;
    of.lora_a_EC = random({num_experts * rank, inputs}, {setting.device, at::kFloat}, seed, 0.05).requires_grad_();
    of.lora_b_ER = random({num_experts * outputs, rank}, {setting.device, at::kFloat}, seed + 1, 0.05).requires_grad_();
    of.scale = 2;
    for (int64_t e = 0; e < num_experts; ++e) {
      auto& weight = weights.emplace_back(frozen(random({outputs, inputs}, setting, seed + 2 + static_cast<uint64_t>(e), 0.02)));
      if (setting.device.is_cuda()) weight.to_device(setting.device, setting.type);
      of.weights.push_back(&weight);
    }
    return of;
  };
  weights.reserve(static_cast<size_t>(2 * num_experts));
  const auto gate_up = bank(2 * width, hidden, 100), down = bank(hidden, width, 10000);
  const auto x = random({tokens, hidden}, setting, 1), gradient = random({tokens, hidden}, setting, 2);
  const auto routed = at::rand({tokens, num_experts}, at::make_generator<at::CPUGeneratorImpl>(uint64_t{3}), at::TensorOptions(at::kFloat)).topk(chosen);
  const auto chosen_NK = std::get<1>(routed).to(setting.device), weights_NK = std::get<0>(routed).softmax(1).to(setting.device);
  Tensor got;
  const auto times = alternate(setting, [&] { got = gradient_of(x, [&](const Tensor& input) { return experts(input, chosen_NK, weights_NK, gate_up, down); }, gradient); },
                               [&] { gradient_of(x, [&](const Tensor& input) { return experts_reference(input, chosen_NK, weights_NK, gate_up, down); }, gradient); });
  double error = NAN;
  if (setting.errors) error = relative_error(got, gradient_of(x.to(at::kFloat), [&](const Tensor& input) { return experts_reference(input, chosen_NK, weights_NK, gate_up, down); }, gradient.to(at::kFloat)));
  report(results, fmt::format("experts {} x {}, {} of {}, {} wide, rank {}", tokens, hidden, chosen, num_experts, width, rank), setting,
         4.0 * static_cast<double>(tokens * chosen * 3 * hidden * width), times, error);
}

int run(int argc, char** argv) {
  Setting setting;
  std::string json_path, only;
  bool large = false;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
    if (argument == "--device") setting.device = at::Device(value), ++i;
    else if (argument == "--type") setting.type = value == "float32" ? at::kFloat : at::kBFloat16, ++i;
    else if (argument == "--rounds") setting.rounds = std::stoi(value), ++i;
    else if (argument == "--json") json_path = value, ++i;
    else if (argument == "--only") only = value, ++i;
    else if (argument == "--threads") at::set_num_threads(std::stoi(value)), ++i;
    else if (argument == "--large") large = true;
    else return std::fprintf(stderr, "kernels: unknown argument '%s' (tools/bench/kernels --help)\n", argument.c_str()), 2;
  }
  if (setting.device.is_cuda()) {
    large = true;
    const auto problem = load_cuda_module(cuda_module_path());
    if (!problem.empty()) return std::fprintf(stderr, "kernels: %s\n", problem.c_str()), 3;
  }
  setting.errors = !large;
  Json results = Json::array();
  const auto wanted = [&](const char* name) { return only.empty() || std::string(name).find(only) != std::string::npos; };
  if (wanted("attention")) {
    if (large) {
      for (const int64_t length : {512, 2048, 8192}) bench_attention(results, setting, 16384 / length, length, 32, 8, 128);
      bench_attention(results, setting, 2, 8192, 64, 8, 64);
    } else {
      bench_attention(results, setting, 16, 128, 9, 3, 64);
      bench_attention(results, setting, 1, 2048, 9, 3, 64);
      bench_attention(results, setting, 2, 1024, 8, 2, 128);
    }
  }
  if (wanted("rms_norm")) bench_rms_norm(results, setting, large ? 16384 : 2048, large ? 4096 : 576);
  if (wanted("linear_cross_entropy")) {
    if (large) bench_cross_entropy(results, setting, 8192, 4096, 128256);
    else bench_cross_entropy(results, setting, 512, 576, 49152), bench_cross_entropy(results, setting, 512, 896, 151936);
  }
  if (wanted("lora_linear")) {
    if (large) bench_lora_linear(results, setting, 8192, 4096, 4096, 16);
    else bench_lora_linear(results, setting, 2048, 576, 1536, 16), bench_lora_linear(results, setting, 512, 576, 1536, 16);
  }
  if (wanted("experts")) bench_experts(results, setting, large ? 16384 : 2048, 2048, 768, large ? 128 : 64, 8, 16);
  if (!json_path.empty()) std::ofstream(json_path) << results.dump(1) << "\n";
  return 0;
}

}  // namespace
}  // namespace graft

int main(int argc, char** argv) { return graft::run(argc, argv); }
