// Training through an export's rounding (recipe: adapter.quantization_aware): every adapted matrix as that export will hold it,
//
//   W^ = quantise(W + scale * B A),
//
// by the export's own code (merged_weights.h), in its blocks. Forward and backward multiply with W^; the gradients of A and B are those of the product that W^ holds,
// straight through the rounding (kernels/lora_linear). W^ is a pure function of the base and the adapter, so the merged export has the very bytes that were trained.
// The weights that no adapter sits on stay the base's; an export rounds them once.
// Merging without it erases a fine-tune on a base that already lies on the target's grid. The design: L4Q (arXiv 2402.04902).
#pragma once
#include <cstddef>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "trainer/adapters/adapter_set.h"
#include "trainer/exports/export_source.h"
#include "trainer/exports/merged_weights.h"

namespace graft {

class ServedWeights {
 public:
  // For a merged form of export.h; `base` is the file or folder that `decoder` was loaded from. Decoder and adapters must outlive this.
  // UserError: what the export would refuse; a layout of the export in which a matrix's rows are not whole rows of blocks; dropout.
  ServedWeights(const Decoder& decoder, AdapterSet& adapters, const std::filesystem::path& base, const std::string& format);
  ~ServedWeights();   // the adapters' products are added to the base again
  ServedWeights(const ServedWeights&) = delete;

  // Makes W^ of the adapters' values, on the device where these lie. After every change of them, and of the device.
  void update();

  const std::string& format() const { return format_; }
  int64_t num_bytes() const { return num_bytes_; }   // of all W^
  std::string describe() const;                      // "Q4_1 210"

 private:
  // One of an adapter's matrices (of a bank every rule's is one) in blocks.
  struct Matrix {
    Adapter* adapter = nullptr;
    int64_t rows = 0;
    std::optional<TensorType> type;
    std::shared_ptr<std::vector<std::byte>> blocks;
    int64_t num_bytes() const { return bytes_of(*type, std::vector<int64_t>{rows, adapter->inputs}).value(); }
  };
  // Where a rule's rows come from and go to.
  struct Place {
    Matrix* matrix = nullptr;
    int64_t first_row = 0;                // in the matrix
    std::vector<int64_t> stored_of_ours;  // empty: the same row
  };
  TensorType type_of(const MergedTensor& tensor) const;
  void make_places(NameColumn column);
  void take_types(const MergedTensor& tensor, NameColumn column);
  void copy_rows(const MergedTensor& tensor, std::span<const std::byte> bytes);

  const Decoder& decoder_;
  AdapterSet& adapters_;
  std::string format_;
  ExportSource source_;                   // weights_ points into its updates
  std::unique_ptr<MergedWeights> weights_;
  std::map<std::string, TensorType> types_;   // of the export's tensors, by name
  std::deque<Matrix> matrices_;           // in the order of the adapters, of a bank in that of its rules
  std::map<const WeightRule*, Place> places_;
  int64_t num_bytes_ = 0;
};

}  // namespace graft
