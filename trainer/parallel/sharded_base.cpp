#include "trainer/parallel/sharded_base.h"

#include <algorithm>
#include <cstring>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "kernels/common/error.h"
#include "kernels/common/rounded_up.h"

namespace graft {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kPieceRows = 256;   // pieces of whole chains: the bits of one head (frozen_product.h)

// Lies where the source keeps it: in a mapped file, or (MXFP4 of safetensors) in memory of its own, which is not let go.
bool is_source_memory(const Decoder& decoder, const FrozenWeight& weight) {
  return std::any_of(decoder.weights().begin(), decoder.weights().end(), [&](const BoundWeight& bound) {
    const auto* begin = bound.tensor->bytes.data();
    return weight.row(0) >= begin && weight.row(0) < begin + bound.tensor->bytes.size();
  });
}

void forget(const Decoder& decoder, const FrozenWeight& weight) { decoder.source().forget({weight.row(0), static_cast<size_t>(weight.num_bytes())}); }

at::Tensor bytes_of(const at::Tensor& matrix) { return matrix.view({-1}).view(at::kByte); }

}  // namespace

class ShardedBase::Head : public HeadPieces {
 public:
  Head(ShardedBase& base, const FrozenWeight& whole) : base_(base), rows_(whole.rows()), columns_(whole.columns()), softcap_(base.decoder_.head().softcap) {}
  int64_t rows() const override { return rows_; }
  int64_t columns() const override { return columns_; }
  int64_t num_pieces() const override { return static_cast<int64_t>(base_.head_pieces_.size()); }
  const FrozenWeight& piece(int64_t index) const override {
    base_.use(base_.decoder_.num_layers() + index);
    return *base_.head_pieces_[static_cast<size_t>(index)];
  }
  double softcap() const override { return softcap_; }

 private:
  ShardedBase& base_;
  int64_t rows_, columns_;
  double softcap_;
};

ShardedBase::ShardedBase(Decoder& decoder, ProcessGroup& group, c10::Device device) : decoder_(decoder), group_(group), device_(device) {
  TORCH_INTERNAL_ASSERT(!group.alone(), "one process shards nothing");
  int64_t largest_layer = 0;
  for (int64_t layer = 0; layer < decoder.num_layers(); ++layer) {
    Unit unit;
    int64_t bytes = 0;
    for (auto* linear : decoder.linears_of_layer(layer)) {
      for (auto* weight : linear->weights()) {
        unit.members.push_back({weight, *weight});
        bytes += weight->num_bytes();
      }
    }
    units_.push_back(std::move(unit));
    largest_layer = std::max(largest_layer, bytes);
    take(units_.back());
  }
  const FrozenWeight whole = *decoder.head().weight;
  // A GPU's products of pieces would round otherwise than one of the whole head.
  const int64_t piece_rows = device.is_cpu() ? std::max(kPieceRows, largest_layer / whole.row_bytes() / kPieceRows * kPieceRows) : whole.rows();
  for (int64_t first = 0; first < whole.rows(); first += piece_rows) {
    head_pieces_.push_back(std::make_unique<FrozenWeight>(whole.type(), std::min(piece_rows, whole.rows() - first), whole.columns(), whole.row(first), nullptr));
    Unit unit;
    unit.members.push_back({head_pieces_.back().get(), *head_pieces_.back(), DeviceForm::kDecoded});
    units_.push_back(std::move(unit));
    take(units_.back());
  }
  if (!device.is_cpu()) decoder.mutable_head().hold(at::Tensor());
  head_ = std::make_unique<Head>(*this, whole);
  for (const auto& bound : decoder.weights()) {   // also those whose rows were put in our order: they were read, too
    decoder.source().forget(bound.tensor->bytes);
  }
  int64_t largest = 0;
  for (const auto& unit : units_) largest = std::max(largest, unit.share * group.size());
  for (auto& slot : slots_) slot.bytes = at::empty({largest}, at::TensorOptions(at::kByte).device(device));
}

// Lays the unit's members out, keeps this rank's share and lets go of the rest.
void ShardedBase::take(Unit& unit) {
  std::vector<at::Tensor> on_device;
  int64_t total = 0;
  for (auto& member : unit.members) {
    member.offset = total;
    if (device_.is_cpu()) {
      member.bytes = member.weight->num_bytes();
    } else {
      member.weight->to_device(device_, scalar_type(decoder_.compute()), member.device_form);
      on_device.push_back(member.weight->device_copy());
      member.device_type = on_device.back().scalar_type();
      member.device_columns = on_device.back().size(1);
      member.bytes = static_cast<int64_t>(on_device.back().nbytes());
    }
    total = rounded_up(total + member.bytes, kAlignment);
  }
  unit.share = rounded_up((total + group_.size() - 1) / group_.size(), kAlignment);
  unit.shard = at::zeros({unit.share}, at::TensorOptions(at::kByte).device(device_));
  const int64_t begin = group_.rank() * unit.share, end = begin + unit.share;
  for (size_t i = 0; i < unit.members.size(); ++i) {
    auto& member = unit.members[i];
    const int64_t from = std::max(begin, member.offset), to = std::min(end, member.offset + member.bytes);
    if (from < to && device_.is_cpu()) {
      std::memcpy(unit.shard.data_ptr<uint8_t>() + from - begin, member.weight->row(0) + from - member.offset, static_cast<size_t>(to - from));
    } else if (from < to) {
      unit.shard.narrow(0, from - begin, to - from).copy_(bytes_of(on_device[i]).narrow(0, from - member.offset, to - from));
    }
    if (!device_.is_cpu()) {
      member.weight->hold(at::Tensor());
    } else if (is_source_memory(decoder_, *member.weight)) {
      forget(decoder_, *member.weight);
    } else {
      member.original = FrozenWeight();   // its rows were put in our order, in memory: now only the shards have them
      *member.weight = FrozenWeight(member.weight->type(), member.weight->rows(), member.weight->columns(), nullptr, nullptr);
    }
  }
}

void ShardedBase::begin(const GatherRound& round) {
  visits_.clear();
  next_visit_ = 0;
  const int64_t layers = decoder_.num_layers(), pieces = static_cast<int64_t>(head_pieces_.size());
  for (int64_t layer = 0; layer < layers; ++layer) visits_.push_back(layer);
  for (int64_t pass = 0; pass < round.head_blocks * (round.gradient ? 2 : 1); ++pass) {
    for (int64_t piece = 0; piece < pieces; ++piece) visits_.push_back(layers + piece);
  }
  for (int64_t layer = layers - 1; round.gradient && layer >= round.lowest_layer; --layer) visits_.push_back(layer);
}

void ShardedBase::use_layer(int64_t layer) {
  const auto& embedding = decoder_.embedding();   // the rows of this micro-batch have been read, each with the pages around it
  if (layer == 0) forget(decoder_, embedding);
  use(layer);
}
const HeadPieces& ShardedBase::head() { return *head_; }

void ShardedBase::use(int64_t unit) {
  while (next_visit_ < visits_.size()) {
    const int64_t visit = visits_[next_visit_++];
    fetch(visit);
    if (visit == unit) return;
  }
  TORCH_INTERNAL_ASSERT(false, "unit ", unit, " is not in this round any more");
}

void ShardedBase::end() {
  while (next_visit_ < visits_.size()) fetch(visits_[next_visit_++]);
}

ShardedBase::Slot* ShardedBase::slot_of(int64_t unit) {
  for (auto& slot : slots_) {
    if (slot.unit == unit) return &slot;
  }
  return nullptr;
}

void ShardedBase::start(int64_t unit, Slot& slot) {
  const int64_t share = units_[static_cast<size_t>(unit)].share;
  slot.unit = unit;
  auto all = slot.bytes.narrow(0, 0, share * group_.size());
  slot.pending = group_.gather(all, units_[static_cast<size_t>(unit)].shard, "gathering the base");
  bytes_gathered_ += share * (group_.size() - 1);
}

void ShardedBase::fetch(int64_t unit) {
  if (!slot_of(unit)) start(unit, slots_[0].unit == current_ ? slots_[1] : slots_[0]);
  auto& slot = *slot_of(unit);
  if (slot.pending) slot.pending->wait();
  slot.pending.reset();
  current_ = unit;
  point_to(units_[static_cast<size_t>(unit)], slot);
  if (next_visit_ == visits_.size()) return;
  const int64_t next = visits_[next_visit_];
  if (!slot_of(next)) start(next, &slot == &slots_[0] ? slots_[1] : slots_[0]);   // meanwhile
}

void ShardedBase::point_to(Unit& unit, const Slot& slot) {
  for (auto& member : unit.members) {
    auto& weight = *member.weight;
    if (device_.is_cpu()) {
      const auto* bytes = reinterpret_cast<const std::byte*>(slot.bytes.const_data_ptr<uint8_t>());
      weight = FrozenWeight(weight.type(), weight.rows(), weight.columns(), bytes + member.offset, nullptr);
    } else {
      weight.hold(slot.bytes.narrow(0, member.offset, member.bytes).view(member.device_type).view({weight.rows(), member.device_columns}));
    }
  }
}

void ShardedBase::restore() {
  visits_.clear();
  next_visit_ = 0;
  for (size_t index = 0; index < units_.size(); ++index) {
    auto& unit = units_[index];
    const bool gathers = std::any_of(unit.members.begin(), unit.members.end(), [](const Member& member) { return member.original.rows() == 0; });
    if (gathers) fetch(static_cast<int64_t>(index));
    for (auto& member : unit.members) {
      auto& weight = *member.weight;
      if (member.original.rows() == 0) {
        auto copy = std::make_shared<std::vector<std::byte>>(weight.row(0), weight.row(0) + weight.num_bytes());
        member.original = FrozenWeight(weight.type(), weight.rows(), weight.columns(), copy->data(), copy);
      }
      weight = member.original;
    }
    unit.shard = at::Tensor();
  }
  if (!device_.is_cpu()) decoder_.mutable_head().release();
  for (auto& slot : slots_) slot = Slot();
}

int64_t ShardedBase::shard_bytes() const {
  int64_t bytes = 0;
  for (const auto& unit : units_) bytes += unit.share;
  return bytes;
}

int64_t ShardedBase::buffer_bytes() const { return slots_[0].bytes.numel() + slots_[1].bytes.numel(); }

}  // namespace graft
