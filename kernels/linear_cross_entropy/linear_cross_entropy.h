// Cross-entropy of a linear head over blocks of rows: no [N, V] logits anywhere.
//
//   logits_MV = h W^T, or softcap * tanh(h W^T / softcap);  loss = sum_i weight_i * (logsumexp(logits_i) - logits_i[label_i])
//   dh_i = gradient_scale * weight_i * (softmax(logits_i) - onehot(label_i)) W
//
// As many rows as fit buffer_bytes at full vocabulary in float32; softmax and gradient overwrite the logits (4MHV FLOPs). The head's rows are
// decoded tile by tile, so memory does not grow with the vocabulary beyond the buffer. Products, softmax and loss in float32, sums in double.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kernels/frozen_weight/frozen_weight.h"

namespace graft {

constexpr int64_t default_loss_buffer_bytes(bool on_cpu) { return int64_t{on_cpu ? 64 : 512} << 20; }

// The last matrix of a model and what bounds its logits.
struct LinearHead {
  const FrozenWeight* weight = nullptr;
  double softcap = 0;                               // 0: none

  LinearHead(const FrozenWeight& weight, double softcap = 0) : weight(&weight), softcap(softcap) {}
  int64_t rows() const { return weight->rows(); }
  int64_t columns() const { return weight->columns(); }
};

// A head whose rows come in pieces, one at a time, each but the last with a multiple of 256 rows: the same bits as one piece.
class HeadPieces {
 public:
  virtual ~HeadPieces() = default;
  virtual int64_t rows() const = 0;
  virtual int64_t columns() const = 0;
  virtual int64_t num_pieces() const = 0;
  virtual const FrozenWeight& piece(int64_t index) const = 0;   // valid until the next call
  virtual double softcap() const { return 0; }
};

class WholeHead : public HeadPieces {
 public:
  explicit WholeHead(const LinearHead& head) : head_(head) {}
  int64_t rows() const override { return head_.rows(); }
  int64_t columns() const override { return head_.columns(); }
  int64_t num_pieces() const override { return 1; }
  const FrozenWeight& piece(int64_t) const override { return *head_.weight; }
  double softcap() const override { return head_.softcap; }

 private:
  const LinearHead head_;
};

struct CrossEntropyOptions {
  bool want_gradient = true;
  double gradient_scale = 1;                        // 1 / the step's count of supervised tokens
  int64_t buffer_bytes = default_loss_buffer_bytes(true);
};

struct CrossEntropyResult {
  double weighted_loss = 0;                         // sum of weight * negative log-likelihood
  std::vector<float> losses_M;                      // negative log-likelihood of each row
  std::vector<uint8_t> correct_M;                   // the label has the highest logit
  at::Tensor gradient_MC;                           // of hidden, its type; undefined when not wanted
};

// hidden_MC: supervised rows only, bfloat16 or float32. labels: 0..V-1. weights: empty means 1.
CrossEntropyResult linear_cross_entropy(const at::Tensor& hidden_MC, const LinearHead& head_VC, std::span<const int32_t> labels_M,
                                        std::span<const float> weights_M, const CrossEntropyOptions& options = {});

CrossEntropyResult linear_cross_entropy(const at::Tensor& hidden_MC, const HeadPieces& head, std::span<const int32_t> labels_M,
                                        std::span<const float> weights_M, const CrossEntropyOptions& options = {});
// How many blocks of rows that takes: each goes through all pieces once, with a gradient twice.
int64_t cross_entropy_blocks(int64_t num_rows, int64_t vocab_size, int64_t buffer_bytes);


// The same in plain ATen, any floating type and device: the specification, and what GPUs run.
CrossEntropyResult linear_cross_entropy_reference(const at::Tensor& hidden_MC, const HeadPieces& head, std::span<const int32_t> labels_M,
                                                  std::span<const float> weights_M, const CrossEntropyOptions& options = {});
CrossEntropyResult linear_cross_entropy_reference(const at::Tensor& hidden_MC, const LinearHead& head_VC, std::span<const int32_t> labels_M,
                                                  std::span<const float> weights_M, const CrossEntropyOptions& options = {});

// Logits of rows: float32 [M, V]. CPU.
at::Tensor head_logits(const at::Tensor& hidden_MC, const LinearHead& head_VC);

}  // namespace graft
