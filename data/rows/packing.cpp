#include "data/rows/packing.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "kernels/common/error.h"

namespace graft {
namespace {

// Philox4x32-10: 64 random bits as a pure function of key and counter.
uint64_t philox(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
  std::array<uint32_t, 4> x = {static_cast<uint32_t>(counter_low), static_cast<uint32_t>(counter_low >> 32),
                               static_cast<uint32_t>(counter_high), static_cast<uint32_t>(counter_high >> 32)};
  uint32_t key_0 = static_cast<uint32_t>(key), key_1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product_0 = uint64_t{0xD2511F53} * x[0], product_1 = uint64_t{0xCD9E8D57} * x[2];
    x = {static_cast<uint32_t>(product_1 >> 32) ^ x[1] ^ key_0, static_cast<uint32_t>(product_1),
         static_cast<uint32_t>(product_0 >> 32) ^ x[3] ^ key_1, static_cast<uint32_t>(product_0)};
    key_0 += 0x9E3779B9;
    key_1 += 0xBB67AE85;
  }
  return (uint64_t{x[1]} << 32) | x[0];
}

struct Epoch {
  int64_t num_rows = -1, epoch = -1;
  uint64_t seed = 0;
  std::vector<int64_t> order;
};

}  // namespace

int64_t steps_per_epoch(int64_t num_rows, int64_t batch_rows) {
  if (num_rows < 0 || batch_rows < 1)
    fail("data", "expected rows and at least 1 row a step, got {} rows, batch_rows {} — see optimizer.batch_rows", num_rows,
         batch_rows);
  return (num_rows + batch_rows - 1) / batch_rows;
}

std::vector<int64_t> permutation_of_epoch(int64_t num_rows, uint64_t seed, int64_t epoch) {
  std::vector<int64_t> order(static_cast<size_t>(num_rows));
  std::iota(order.begin(), order.end(), 0);
  for (uint64_t last = order.size(); last > 1; --last) {
    // Multiply and shift instead of a remainder: the bias is below last / 2^64.
    const auto random = static_cast<unsigned __int128>(philox(seed, last, static_cast<uint64_t>(epoch)));
    std::swap(order[last - 1], order[static_cast<size_t>((random * last) >> 64)]);
  }
  return order;
}

std::vector<int64_t> rows_of_step(int64_t num_rows, int64_t batch_rows, uint64_t seed, int64_t step) {
  const int64_t steps = steps_per_epoch(num_rows, batch_rows);
  if (steps == 0 || step < 0)
    fail("data", "expected a step of a data set with rows, got step {} of {} rows — see data.train", step, num_rows);
  thread_local Epoch last;
  const int64_t epoch = step / steps;
  if (last.num_rows != num_rows || last.seed != seed || last.epoch != epoch) {
    last = {num_rows, epoch, seed, permutation_of_epoch(num_rows, seed, epoch)};
  }
  const auto begin = last.order.begin() + (step % steps) * batch_rows;
  return {begin, begin + std::min(batch_rows, num_rows - (step % steps) * batch_rows)};
}

MicroBatches pack_rows(const std::vector<int64_t>& rows, const std::vector<int64_t>& lengths, int64_t pack_tokens) {
  if (pack_tokens < 1) fail("data", "expected at least 1 token a micro-batch, got {} — see data.pack_tokens", pack_tokens);
  std::vector<size_t> order(rows.size());  // positions in `rows`, longest first
  std::iota(order.begin(), order.end(), 0);
  const auto length_at = [&](size_t position) { return lengths.at(static_cast<size_t>(rows[position])); };
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return length_at(a) > length_at(b); });
  std::vector<std::vector<size_t>> bins;
  std::vector<int64_t> room;
  size_t first_open = 0;  // bins before this one have no room for even one token
  for (const size_t position : order) {
    const int64_t length = length_at(position);
    size_t bin = first_open;
    while (bin < bins.size() && room[bin] < length) ++bin;
    if (bin == bins.size()) {
      bins.emplace_back();
      room.push_back(pack_tokens);
    }
    bins[bin].push_back(position);
    room[bin] -= length;
    while (first_open < bins.size() && room[first_open] < 1) ++first_open;
  }
  for (auto& bin : bins) std::sort(bin.begin(), bin.end());
  std::sort(bins.begin(), bins.end());
  MicroBatches batches;
  for (const auto& bin : bins) {
    auto& batch = batches.emplace_back();
    for (const size_t position : bin) batch.push_back(rows[position]);
  }
  return batches;
}

PackedArrays make_packed(const std::vector<TokenSpan>& documents) {
  PackedArrays packed;
  packed.document_offsets.push_back(0);
  for (const TokenSpan& document : documents) {
    const size_t length = document.ids.size();
    for (size_t index = 0; index < length; ++index) {
      const bool is_target = index + 1 < length && document.supervised[index + 1];
      packed.tokens.push_back(document.ids[index]);
      packed.positions.push_back(static_cast<int32_t>(index));
      packed.labels.push_back(is_target ? document.ids[index + 1] : -100);
      packed.weights.push_back(document.weight);
    }
    packed.document_offsets.push_back(static_cast<int32_t>(packed.tokens.size()));
  }
  return packed;
}

int64_t count_targets(std::span<const uint8_t> supervised) {
  return supervised.empty() ? 0
                            : std::count_if(supervised.begin() + 1, supervised.end(), [](uint8_t flag) { return flag != 0; });
}

}  // namespace graft
