// An importance matrix of a model: the mean square of each column that its linears multiply with, over the tokens of some batches. Entries are named, laid out
// and ordered as the GGUF file's tensors are. Embedding and head have none, as in llama-imatrix, nor matrices that GGUF files hold transposed.
#pragma once
#include <map>
#include <vector>

#include "checkpoints/importance_matrix.h"
#include "trainer/models/decoder.h"
#include "trainer/models/input_observer.h"

namespace graft {

class InputSquares : public InputObserver {
 public:
  explicit InputSquares(const Decoder& decoder) : decoder_(decoder) {}
  // Runs the decoder as it is, adapters included; sums in double.
  void add(Batch batch);
  void see(const Linear& linear, int64_t expert, const at::Tensor& p_NC) override;
  // Each batch is a chunk; `datasets` and `chunk_size` are what the file says of itself.
  ImportanceMatrix matrix(std::vector<std::string> datasets, uint32_t chunk_size) const;

 private:
  struct Sums {
    std::vector<double> squares_C;
    int64_t count = 0;
  };
  const Decoder& decoder_;
  std::map<const Linear*, std::vector<Sums>> sums_;   // of each expert
  uint32_t num_batches_ = 0;
};

}  // namespace graft
