// The student's residual stream after some of its layers against the teacher's after layers that belong to them:
//
//   hidden-state loss = mean over pairs of layers of |W h - t|^2 / |t|^2
//
// h [C]: the student's state of a token after its layer (before the final norm), t [D]: the teacher's. Each state of the teacher counts relative to its own length, so that neither a
// model's scale nor a token of a thousand times the others' activations decides. W [D, C]: of each pair, without bias; learnt with the adapters, in their flat buffer, which is in checkpoints
// and goes into no export. It begins orthogonal (W^T W = 1, where the teacher is the narrower W W^T = 1): by the seed, or for a student that was cut from a wider model (`graft export --hidden`) as
// what puts its channels where they were. Where both have one width there is no W.
//
// TinyBERT (Jiao et al. 2020, arXiv 1909.10351) and DistillKit take the plain mean squared error over channels: TinyBERT with one W for all layers, also at one width, the sum over layers and
// layer i from layer (i + 1) T / S - 1 too; DistillKit with a W for each pair only where widths differ, the mean over named pairs.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "trainer/adapters/adapter_set.h"
#include "trainer/recipe/recipe.h"

namespace graft {

class HiddenMatching {
 public:
  // Appends its projections to `adapters`, which must outlive this. kept_channels: where the student's channels were in the model that it was cut from; empty, or not of the teacher's width: by
  // the seed. UserError: a layer that one of the models has not.
  HiddenMatching(const ObjectiveOptions& options, const DecoderSpec& student, const DecoderSpec& teacher, AdapterSet& adapters, uint64_t seed, std::span<const int64_t> kept_channels = {});

  double weight() const { return weight_; }
  // Of each pair: whose states `loss` reads.
  const std::vector<int64_t>& student_layers() const { return student_layers_; }
  const std::vector<int64_t>& teacher_layers() const { return teacher_layers_; }

  struct Loss {
    double weighted = 0;       // sum over rows of weight * hidden-state loss, the part of this student layer's pairs
    at::Tensor gradient_MC;    // of the student's states, their type; undefined when not wanted
  };
  // Of pairs with this layer of the student; undefined and 0 where it has none. student_MC: its states of M tokens; teacher_MD: theirs of the teacher, of each pair. weights_M: empty means 1.
  // gradient_scale: times `weighted` is what is minimised; its gradients of the projections are added to the adapters' buffer. Unset: none are wanted.
  Loss loss(int64_t student_layer, const at::Tensor& student_MC, std::span<const at::Tensor> teacher_MD, std::span<const float> weights_M, std::optional<double> gradient_scale) const;

  bool has_pair(int64_t student_layer) const;
  bool projects() const { return width_ != teacher_width_; }
  at::Tensor projection(size_t pair) const;    // a view of the flat buffer; undefined where there is none
  int64_t num_parameters() const { return projects() ? static_cast<int64_t>(student_layers_.size()) * width_ * teacher_width_ : 0; }
  int64_t num_bytes(int64_t tokens) const;     // of states, gradients and one pair's scratch, in memory at once at most
  std::string describe() const;                // for plan and log

 private:
  AdapterSet& adapters_;
  double weight_ = 0;
  std::vector<int64_t> student_layers_, teacher_layers_;
  int64_t width_ = 0, teacher_width_ = 0, offset_ = 0;   // offset_: of the first projection in the flat buffer
  bool begins_as_cut_ = false;
};

}  // namespace graft
