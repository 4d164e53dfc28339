// The last matrix of a model. Losses apply it to blocks of rows, so that there are no [N, V] logits anywhere.
#pragma once
#include <cstdint>

#include <ATen/core/Tensor.h>

#include "kernels/frozen_weight/frozen_weight.h"

namespace graft {

// Of a loss: what its logits may take at a time.
constexpr int64_t default_loss_buffer_bytes(bool on_cpu) { return int64_t{on_cpu ? 64 : 512} << 20; }

// The last matrix and what bounds its logits.
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

// f(first row, piece) for each piece of a head in order.
template <typename Function>
void for_pieces(const HeadPieces& head, const Function& f) {
  int64_t first = 0;
  for (int64_t index = 0; index < head.num_pieces(); ++index) {
    const auto& piece = head.piece(index);
    f(first, piece);
    first += piece.rows();
  }
}

// Rows of a block where `row_bytes` each must fit the buffer, at least one: as few blocks as can be, all about equal, so that no more of the buffer is used than helps.
int64_t rows_of_block(int64_t num_rows, int64_t row_bytes, int64_t buffer_bytes);

// Logits of rows: float32 [M, V]. CPU.
at::Tensor head_logits(const at::Tensor& hidden_MC, const LinearHead& head_VC);

}  // namespace graft
