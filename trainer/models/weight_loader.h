// A checkpoint's tensors as the parts of a decoder: one block of each kind of spec.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "trainer/models/blocks.h"
#include "trainer/models/decoder_spec.h"
#include "trainer/models/mlp.h"

namespace graft {

// Finds a rule's tensor and makes our form of it. `bound` must outlive this.
class WeightLoader {
 public:
  WeightLoader(const std::vector<BoundWeight>& bound, NameColumn column, std::shared_ptr<const TensorSource> source);

  FrozenWeight matrix(const std::string& ours) const;   // of the mapped file where it lies there as ours, else a copy
  at::Tensor vector(const std::string& ours) const;     // float32
  Linear linear(const std::string& ours, bool bias) const;
  std::optional<Norm> norm(const std::string& ours, const std::optional<NormSpec>& spec) const;

  // `prefix` of the layer: "layers.0.".
  std::unique_ptr<Block> block(const std::string& prefix, const AttentionSpec& spec) const;
  std::unique_ptr<Block> block(const std::string& prefix, const LatentAttentionSpec& spec) const;
  std::unique_ptr<Block> block(const std::string& prefix, const DeltaAttentionSpec& spec) const;
  std::unique_ptr<Block> block(const std::string& prefix, const MlpSpec& spec) const;
  std::unique_ptr<Block> block(const std::string& prefix, const ExpertsSpec& spec) const;

 private:
  const BoundWeight& find(const std::string& ours) const;
  Mlp mlp(const std::string& prefix, const MlpSpec& spec) const;
  // One linear whose rows are those of several rules, one after another: one tensor on the hub, others in GGUF.
  Linear joined(const std::string& ours, const std::vector<std::string>& parts) const;
  // Small matrices over each other, float32.
  at::Tensor values(const std::string& ours, const std::vector<std::string>& parts) const;
  // The matrices of all experts, `parts` of each over each other.
  Linear bank(const std::string& prefix, const std::string& name, const std::vector<std::string>& parts, const ExpertsSpec& spec) const;

  std::unordered_map<std::string, const BoundWeight*> bound_;
  NameColumn column_;
  std::shared_ptr<const TensorSource> source_;
};

}  // namespace graft
