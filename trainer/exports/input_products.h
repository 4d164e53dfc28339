// Sums of x x^T of what every linear multiplies with, for error feedback. A matrix with C columns takes 4 C^2 bytes: as many as fit a budget are summed in one pass
// over the tokens, the next ones in another when they are asked for.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "trainer/exports/column_products.h"
#include "trainer/models/decoder.h"
#include "trainer/models/input_observer.h"

namespace graft {

class InputProducts : public ColumnProducts, private InputObserver {
 public:
  // run: calls its argument with each batch. `decoder` runs as it is, adapters included, and outlives this.
  using Batches = std::function<void(const std::function<void(Batch)>&)>;
  InputProducts(const Decoder& decoder, Batches run, int64_t budget_bytes);
  std::span<const double> of(const WeightRule& rule) override;

 private:
  using Key = std::pair<const Linear*, int64_t>;   // and the expert of a bank
  void see(const Linear& linear, int64_t expert, const at::Tensor& p_NC) override;
  void pass();

  const Decoder& decoder_;
  Batches run_;
  int64_t budget_, held_ = 0;
  std::map<Key, std::shared_ptr<at::Tensor>> sums_;   // float32 [C, C]; linears with one input share theirs
  std::set<Key> skipped_;                             // of this pass: what was once left out stays so, or its sum would lack tokens
  std::map<const WeightRule*, Key> of_rule_;          // of all that was ever seen
  std::set<const WeightRule*> unseen_;                // what a whole pass did not show
  const WeightRule* wanted_ = nullptr;
  bool reached_ = false, full_ = false;
  at::Tensor last_input_;
  std::shared_ptr<at::Tensor> last_sum_;
  std::vector<double> answer_;
};

}  // namespace graft
