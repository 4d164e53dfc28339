#include "trainer/runs/plan_processes.h"

#include <algorithm>

#include <fmt/format.h>

#include "trainer/parallel/dealing.h"
#include "trainer/runs/device_memory.h"

namespace graft {
namespace {

struct BaseSizes {
  int64_t layers = 0, largest_layer = 0, head = 0;
};

BaseSizes base_sizes(const PreparedRun& run) {
  BaseSizes sizes;
  const bool on_gpu = run.device.gpu.has_value();
  const auto bytes_of = [&](const FrozenWeight& weight, DeviceForm form) {
    return on_gpu ? FrozenWeight::device_bytes(weight.type(), weight.rows() * weight.columns(), scalar_type(run.decoder->compute()), form) : weight.num_bytes();
  };
  for (int64_t layer = 0; layer < run.decoder->num_layers(); ++layer) {
    int64_t bytes = 0;
    for (const auto* linear : run.decoder->linears_of_layer(layer)) bytes += bytes_of(linear->weight, DeviceForm::kStored);
    sizes.layers += bytes;
    sizes.largest_layer = std::max(sizes.largest_layer, bytes);
  }
  sizes.head = bytes_of(*run.decoder->head().weight, DeviceForm::kDecoded);
  return sizes;
}

}  // namespace

nlohmann::ordered_json plan_processes(const PreparedRun& run, int processes) {
  double micro_batches = 0, rounds = 0, fullest = 0, tokens = 0, head_passes = 0;
  const int64_t steps = std::min(run.steps_per_epoch, run.total_steps);
  for (int64_t step = 0; step < steps; ++step) {
    std::vector<int64_t> sizes;
    int64_t most_blocks = 0;
    for (const auto& sequences : run.micro_batches(run.sequences_of_step(step))) {
      const auto work = run.work_of(run.dataset.train.spans(sequences));
      sizes.push_back(work.tokens);
      tokens += static_cast<double>(work.tokens);
      most_blocks = std::max(most_blocks, work.head_blocks);
    }
    const auto dealt = deal(sizes, processes);
    std::vector<int64_t> of_rank(static_cast<size_t>(processes), 0);
    for (size_t i = 0; i < sizes.size(); ++i) of_rank[static_cast<size_t>(dealt[i])] += sizes[i];
    const auto step_rounds = static_cast<double>(rounds_of(dealt, 0, processes).size());
    micro_batches += static_cast<double>(sizes.size());
    rounds += step_rounds;
    head_passes += step_rounds * 2 * static_cast<double>(most_blocks);
    fullest += static_cast<double>(*std::max_element(of_rank.begin(), of_rank.end()));
  }
  const double count = static_cast<double>(std::max<int64_t>(steps, 1)), others = processes - 1.0;
  const auto sizes = base_sizes(run);
  const bool shards = run.recipe.run.shard_base && processes > 1;
  const int64_t memory = run.device.gpu ? estimate_device_memory(run, run.recompute).total() : estimate_memory(run, run.recompute).total();
  const int64_t whole = sizes.layers + sizes.head;
  const int64_t saved = shards ? whole - whole / processes - 2 * (run.device.gpu ? std::max(sizes.largest_layer, sizes.head) : sizes.largest_layer) : 0;
  const double layer_passes = 2 * rounds / count - (rounds > 0 ? 2.0 / static_cast<double>(run.decoder->num_layers()) * rounds / count : 0);   // the last two layers stay
  const double base_sent = shards ? others / processes * (static_cast<double>(sizes.layers) * layer_passes + static_cast<double>(sizes.head) * head_passes / count) : 0;
  return {{"processes", processes},
          {"micro_batches_per_step", micro_batches / count},
          {"rounds_per_step", rounds / count},
          {"tokens_per_step_of_the_fullest_rank", fullest / count},
          {"idle_share", tokens > 0 ? 1 - tokens / (fullest * processes) : 0},
          {"memory_bytes_per_rank", memory - std::max<int64_t>(saved, 0)},
          {"shard_base", shards},
          {"gradient_bytes_sent_per_rank_and_step", static_cast<int64_t>(2 * others / processes * static_cast<double>(run.adapters->num_parameters()) * 8)},
          {"base_bytes_sent_per_rank_and_step", static_cast<int64_t>(base_sent)}};
}

std::string plan_processes_text(const nlohmann::ordered_json& json) {
  const auto mib = [&](const char* key) { return static_cast<double>(json[key].get<int64_t>()) / 1048576.0; };
  const double idle = 100 * json["idle_share"].get<double>();
  std::string text = fmt::format("  {:<14} {} of them, {:.1f} micro-batches a step in {:.1f} rounds; the fullest rank computes {:.0f} tokens a step\n", "processes",
                                 json["processes"].get<int>(), json["micro_batches_per_step"].get<double>(), json["rounds_per_step"].get<double>(),
                                 json["tokens_per_step_of_the_fullest_rank"].get<double>());
  text += fmt::format("  {:<14} {:.2f} GiB of memory{}; sends {:.1f} MiB of gradients{} a step\n", "each rank", mib("memory_bytes_per_rank") / 1024,
                      json["shard_base"].get<bool>() ? ", the base sharded" : "", mib("gradient_bytes_sent_per_rank_and_step"),
                      json["shard_base"].get<bool>() ? fmt::format(" and {:.0f} MiB of the base", mib("base_bytes_sent_per_rank_and_step")) : "");
  if (idle > 20) {
    text += fmt::format("  {:<14} {:.0f} % of the processes' time is spent waiting: lower data.pack_tokens or raise optimizer.batch_rows\n", "note", idle);
  }
  return text;
}

}  // namespace graft
