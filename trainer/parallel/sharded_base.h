// The frozen base spread over the processes (ZeRO stage 3 for weights that never change; Rajbhandari et al. 2020, arXiv 1910.02054): each keeps 1/N of
// the bytes of every layer's linears and of the head, in the form they are stored or, on a GPU, as they lie there. A layer is gathered before it is
// used, the next one meanwhile, into two buffers. The head goes through the same buffers in pieces. Rows of the embedding are read from the file.
//
// What is gathered when is decided before a micro-batch starts, and is the same on all ranks: one that uses less, or nothing, gathers it all the same.
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "trainer/models/decoder.h"
#include "trainer/models/weight_gate.h"
#include "trainer/parallel/process_group.h"

namespace graft {

// One micro-batch on every rank: forward through all layers, the head, and (gradient) back to `lowest_layer`.
struct GatherRound {
  bool gradient = true;
  int64_t lowest_layer = 0;
  int64_t head_blocks = 1;   // of linear_cross_entropy, the most of any rank
};

class ShardedBase : public WeightGate {
 public:
  // Takes the decoder's weights over, on `device`. Every rank makes one, before Decoder::set_device(device).
  ShardedBase(Decoder& decoder, ProcessGroup& group, c10::Device device);
  // Gives the decoder its whole weights back, on the CPU. Every rank calls it; the object is of no use afterwards.
  void restore();

  void begin(const GatherRound& round);
  void use_layer(int64_t layer) override;
  const HeadPieces& head() override;
  void end();   // of the round: gathers what this rank did not use

  int64_t shard_bytes() const;    // that this rank keeps
  int64_t buffer_bytes() const;   // of both buffers
  int64_t bytes_gathered() const { return bytes_gathered_; }   // received so far

 private:
  class Head;
  struct Member {                 // a weight within its unit
    FrozenWeight* weight;
    FrozenWeight original;        // whole, on the CPU; empty where only the shards have it
    DeviceForm device_form = DeviceForm::kStored;
    int64_t offset = 0, bytes = 0;
    at::ScalarType device_type = at::kByte;   // on a GPU
    int64_t device_columns = 0;
  };
  struct Unit {                   // what is gathered at a time: a layer's linears, or a piece of the head
    std::vector<Member> members;
    int64_t share = 0;            // bytes of each rank
    at::Tensor shard;             // uint8
  };
  struct Slot {
    int64_t unit = -1;
    at::Tensor bytes;             // uint8, size * largest share
    std::unique_ptr<PendingGather> pending;
  };

  void take(Unit& unit);
  void use(int64_t unit);
  void fetch(int64_t unit);
  void start(int64_t unit, Slot& slot);
  Slot* slot_of(int64_t unit);
  void point_to(Unit& unit, const Slot& slot);

  Decoder& decoder_;
  ProcessGroup& group_;
  c10::Device device_;
  std::vector<std::unique_ptr<FrozenWeight>> head_pieces_;
  std::unique_ptr<HeadPieces> head_;
  std::vector<Unit> units_;       // the layers, then the pieces of the head
  Slot slots_[2];
  int64_t current_ = -1;
  std::vector<int64_t> visits_;
  size_t next_visit_ = 0;
  int64_t bytes_gathered_ = 0;
};

}  // namespace graft
