#include "trainer/runs/run_state.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <fstream>

#include <fmt/format.h>
#include <ATen/ops/empty.h>
#include <nlohmann/json.hpp>

#include "checkpoints/atomic_file.h"
#include "checkpoints/hash.h"
#include "checkpoints/safetensors_writer.h"
#include "checkpoints/tensor_source.h"
#include "kernels/common/error.h"

namespace graft {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

constexpr const char* kTensorFile = "state.safetensors";
constexpr const char* kStateFile = "state.json";
constexpr const char* kManifestFile = "checkpoint.json";
constexpr const char* kTensorNames[] = {"parameters", "first_moment", "second_moment"};

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return std::as_bytes(std::span(tensor.const_data_ptr<float>(), static_cast<size_t>(tensor.numel())));
}

std::optional<ordered_json> read_json(const fs::path& path) {
  std::ifstream in(path);
  auto json = ordered_json::parse(in, nullptr, false);
  if (json.is_discarded() || !json.is_object()) return std::nullopt;
  return json;
}

bool hashes_match(const fs::path& folder, const ordered_json& manifest) {
  for (const auto& [name, hash] : manifest.at("sha256").items()) {
    if (!fs::exists(folder / name) || sha256_file(folder / name) != hash.get<std::string>()) return false;
  }
  return true;
}

}  // namespace

ordered_json state_json(const RunState& state) {
  ordered_json json = {{"step", state.step},
                       {"chain", state.chain},
                       {"best_loss", state.best_loss ? ordered_json(*state.best_loss) : ordered_json(nullptr)},
                       {"best_step", state.best_step},
                       {"evaluations_without_improvement", state.evaluations_without_improvement},
                       {"optimizer_steps", state.optimizer_steps},
                       {"tokens", state.tokens},
                       {"supervised_tokens", state.supervised_tokens},
                       {"seconds", state.seconds}};
  if (!state.answers.empty()) json["answers"] = ordered_json::array();
  for (const auto& answer : state.answers) json["answers"].push_back(to_json(answer));
  return json;
}

RunState state_from_json(const ordered_json& json) {
  RunState state;
  state.step = json.at("step").get<int64_t>();
  state.chain = json.at("chain").get<std::string>();
  if (!json.at("best_loss").is_null()) state.best_loss = json.at("best_loss").get<double>();
  state.best_step = json.at("best_step").get<int64_t>();
  state.evaluations_without_improvement = json.at("evaluations_without_improvement").get<int64_t>();
  state.optimizer_steps = json.at("optimizer_steps").get<int64_t>();
  state.tokens = json.at("tokens").get<int64_t>();
  state.supervised_tokens = json.at("supervised_tokens").get<int64_t>();
  state.seconds = json.at("seconds").get<double>();
  if (const auto answers = json.find("answers"); answers != json.end()) {
    for (const auto& answer : *answers) state.answers.push_back(student_answer_from_json(answer));
  }
  return state;
}

std::string save_checkpoint(const fs::path& checkpoints, const RunState& state, const StateTensors& tensors) {
  const auto name = fmt::format("step-{:06}", state.step);
  const auto partial = checkpoints / (name + ".partial");
  make_private_directory(checkpoints);
  fs::remove_all(partial);
  make_private_directory(partial);
  try {
    const at::Tensor values[] = {tensors.parameters.cpu(), tensors.first_moment.cpu(), tensors.second_moment.cpu()};   // copies only from a GPU
    std::vector<TensorDeclaration> declarations;
    for (const auto* tensor_name : kTensorNames) declarations.push_back({tensor_name, TensorType::kF32, {tensors.parameters.numel()}});
    SafetensorsWriter writer(partial / kTensorFile, declarations);
    for (size_t i = 0; i < 3; ++i) writer.write(kTensorNames[i], bytes_of(values[i]));
    writer.finish();
    write_file_atomic(partial / kStateFile, state_json(state).dump(2) + "\n");
    const auto adapter_hash = sha256(bytes_of(values[0]));
    const ordered_json manifest = {
        {"format", 1},
        {"step", state.step},
        {"adapter_sha256", adapter_hash},
        {"sha256", {{kTensorFile, sha256_file(partial / kTensorFile)}, {kStateFile, sha256_file(partial / kStateFile)}}}};
    write_file_atomic(partial / kManifestFile, manifest.dump(2) + "\n");
    if (fs::exists(checkpoints / name)) fs::remove_all(checkpoints / name);   // of a cut-back run: the same step again
    rename_directory_atomic(partial, checkpoints / name);
    return adapter_hash;
  } catch (const MachineError&) {
    std::error_code ignored;
    fs::remove_all(partial, ignored);   // room for the log's last lines
    throw;
  }
}

std::vector<StoredCheckpoint> list_checkpoints(const fs::path& checkpoints, std::vector<std::string>* damaged) {
  std::vector<StoredCheckpoint> found;
  if (!fs::exists(checkpoints)) return found;
  for (const auto& entry : fs::directory_iterator(checkpoints)) {
    const auto name = entry.path().filename().string();
    if (name.ends_with(".partial")) {
      fs::remove_all(entry.path());
      continue;
    }
    if (!name.starts_with("step-")) continue;
    const auto manifest = read_json(entry.path() / kManifestFile);
    if (!manifest || !hashes_match(entry.path(), *manifest)) {
      if (damaged) damaged->push_back(name);
      continue;
    }
    found.push_back({manifest->at("step").get<int64_t>(), entry.path(), manifest->at("adapter_sha256").get<std::string>()});
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.step < b.step; });
  return found;
}

RunState load_checkpoint(const fs::path& folder, StateTensors& tensors) {
  const auto json = read_json(folder / kStateFile);
  if (!json) fail("run", "expected {} to hold {}, got none — the checkpoint is damaged", folder.filename().string(), kStateFile);
  const auto state = state_from_json(*json);
  const auto source = open_tensors(folder / kTensorFile);
  at::Tensor* targets[] = {&tensors.parameters, &tensors.first_moment, &tensors.second_moment};
  for (size_t i = 0; i < 3; ++i) {
    const auto* stored = source->find(kTensorNames[i]);
    if (!stored || stored->type != TensorType::kF32 || stored->num_elements() != targets[i]->numel()) {
      fail("run", "expected {} float32 values of {} in {}, got others — the checkpoint belongs to another recipe", targets[i]->numel(),
           kTensorNames[i], folder.filename().string());
    }
    auto values = at::empty({targets[i]->numel()}, at::kFloat);   // through the CPU: the target may be on a GPU
    std::memcpy(values.data_ptr<float>(), stored->bytes.data(), stored->bytes.size());
    targets[i]->copy_(values);
  }
  return state;
}

void prune_checkpoints(const fs::path& checkpoints, int64_t last, int64_t best) {
  std::vector<std::pair<int64_t, fs::path>> found;
  for (const auto& entry : fs::directory_iterator(checkpoints)) {
    const auto name = entry.path().filename().string();
    if (name.starts_with("step-") && !name.ends_with(".partial")) found.emplace_back(std::stoll(name.substr(5)), entry.path());
  }
  std::sort(found.begin(), found.end());
  const auto removable = std::max<int64_t>(0, static_cast<int64_t>(found.size()) - std::max<int64_t>(last, 1));
  for (int64_t i = 0; i < removable; ++i) {
    if (found[i].first != best) fs::remove_all(found[i].second);
  }
}

std::string next_chain_entry(const std::string& previous, int64_t step, const std::vector<std::string>& row_ids, double loss, double gradient_norm) {
  Sha256 hash;
  hash.update(previous).update(fmt::format("|{}|", step));
  for (const auto& id : row_ids) hash.update(id).update(",");
  hash.update(fmt::format("|{:016x}|{:016x}", std::bit_cast<uint64_t>(loss), std::bit_cast<uint64_t>(gradient_norm)));
  return hash.finish();
}

}  // namespace graft
