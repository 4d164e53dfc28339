#include "data/teacher_signals/signal_codec.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/common/error.h"

namespace graft {
namespace {

constexpr double kDeepest = 24;                 // nats below the likeliest entry
constexpr double kLongestTail = 24, kTailSteps = 65535;

// Of gaps whose mean is V / (n + 1): the parameter that makes geometric gaps shortest (Golomb 1966).
int rice_parameter(int64_t vocab_size, int64_t num_ids) {
  const double mean = static_cast<double>(vocab_size) / static_cast<double>(num_ids + 1) * 0.6931;
  return mean < 2 ? 0 : std::bit_width(static_cast<uint64_t>(mean)) - 1;
}

uint64_t depth_code(double depth) { return static_cast<uint64_t>(std::lround(255 * std::sqrt(std::clamp(depth, 0.0, kDeepest) / kDeepest))); }
double depth_of(uint64_t code) { return kDeepest * static_cast<double>(code * code) / (255.0 * 255.0); }

// 0 is none; else 1 .. 65535 from e^-24 to 1.
uint64_t tail_code(double tail) {
  if (tail <= std::exp(-kLongestTail)) return 0;
  return static_cast<uint64_t>(std::lround((1 + std::min(std::log(tail), 0.0) / kLongestTail) * (kTailSteps - 1))) + 1;
}
double tail_of(uint64_t code) { return code == 0 ? 0 : std::exp((static_cast<double>(code - 1) / (kTailSteps - 1) - 1) * kLongestTail); }

[[noreturn]] void damaged(std::string_view where, std::string_view what) {
  fail("data", "expected a teacher's signals as graft writes them, got {} ({}) — the cache is damaged: `graft cache remove` it and teach again", what, where);
}

// Ascending, each once; false where they are not below the vocabulary.
bool get_ids(const SignalForm& form, BitReader& bits, int64_t count, std::vector<int32_t>& ids) {
  const int parameter = rice_parameter(form.vocab_size, count);
  int64_t id = -1;
  ids.clear();
  for (int64_t i = 0; i < count; ++i) {
    id += 1 + static_cast<int64_t>(bits.get_rice(parameter, static_cast<uint64_t>(form.vocab_size)));
    if (bits.failed() || id >= form.vocab_size) return false;
    ids.push_back(static_cast<int32_t>(id));
  }
  return true;
}

}  // namespace

void SignalEncoder::put_ids(std::span<const int32_t> sorted) {
  const int parameter = rice_parameter(form_.vocab_size, static_cast<int64_t>(sorted.size()));
  int64_t last = -1;
  for (const int32_t id : sorted) {
    if (id <= last || id >= form_.vocab_size) fail("data", "expected different ids of 0 .. {}, got {} after {}", form_.vocab_size - 1, id, last);
    bits_.put_rice(static_cast<uint64_t>(id - last - 1), parameter);
    last = id;
  }
}

void SignalEncoder::add_top(std::span<const int32_t> ids, std::span<const float> log_probabilities, double tail_mass) {
  if (static_cast<int64_t>(ids.size()) != form_.num_entries || ids.size() != log_probabilities.size())
    fail("data", "expected {} entries of a token, got {} ids and {} log-probabilities", form_.num_entries, ids.size(), log_probabilities.size());
  double sum = tail_mass, largest = -std::numeric_limits<double>::infinity();
  for (const double value : log_probabilities) sum += std::exp(value), largest = std::max(largest, value);
  if (!(std::abs(sum - 1) <= 0.01) || !(tail_mass >= 0)) fail("data", "expected entries and tail of a token to sum to 1, got {} with a tail of {}", sum, tail_mass);
  std::vector<size_t> order(ids.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return ids[a] < ids[b]; });
  std::vector<int32_t> sorted(ids.size());
  for (size_t i = 0; i < order.size(); ++i) sorted[i] = ids[order[i]];
  put_ids(sorted);
  for (const size_t i : order) bits_.put(depth_code(largest - log_probabilities[i]), 8);
  bits_.put(tail_code(tail_mass / sum), 16);
  ++num_tokens_;
}

void SignalEncoder::add_drawn(std::span<const int32_t> ids) {
  if (static_cast<int64_t>(ids.size()) != form_.num_entries) fail("data", "expected {} draws of a token, got {}", form_.num_entries, ids.size());
  std::vector<int32_t> sorted(ids.begin(), ids.end()), distinct;
  std::sort(sorted.begin(), sorted.end());
  std::unique_copy(sorted.begin(), sorted.end(), std::back_inserter(distinct));
  bits_.put(distinct.size() - 1, std::bit_width(static_cast<uint64_t>(form_.num_entries - 1)));
  put_ids(distinct);
  size_t first = 0;
  for (size_t i = 0; i + 1 < distinct.size(); ++i) {
    const size_t end = static_cast<size_t>(std::upper_bound(sorted.begin(), sorted.end(), distinct[i]) - sorted.begin());
    bits_.put_gamma(end - first);
    first = end;
  }
  ++num_tokens_;
}

std::vector<std::byte> SignalEncoder::take() {
  num_tokens_ = 0;
  auto bytes = bits_.take();
  bits_ = {};
  return bytes;
}

void decode_signals(const SignalForm& form, std::span<const std::byte> bytes, int64_t num_tokens, std::string_view where, SignalRows& rows) {
  const bool drawn = form.kind == SignalForm::Kind::kDrawn;
  rows.num_entries = form.num_entries;
  BitReader bits(bytes);
  std::vector<int32_t> ids;
  std::vector<double> values;
  for (int64_t token = 0; token < num_tokens; ++token) {
    const int64_t count = drawn ? 1 + static_cast<int64_t>(bits.get(std::bit_width(static_cast<uint64_t>(form.num_entries - 1)))) : form.num_entries;
    if (bits.failed() || count > form.num_entries) damaged(where, bits.failed() ? "fewer bytes" : "more tokens than draws");
    if (!get_ids(form, bits, count, ids)) damaged(where, bits.failed() ? "fewer bytes" : "a token beyond the vocabulary");
    values.assign(static_cast<size_t>(count), 0);
    double tail = 0;
    if (drawn) {
      int64_t left = form.num_entries;
      for (int64_t i = 0; i + 1 < count; ++i) {
        const auto times = static_cast<int64_t>(bits.get_gamma());
        left -= times;
        if (bits.failed() || left < 1) damaged(where, bits.failed() ? "fewer bytes" : "more draws than there were");
        values[i] = std::log(static_cast<double>(times) / static_cast<double>(form.num_entries));
      }
      values[count - 1] = std::log(static_cast<double>(left) / static_cast<double>(form.num_entries));
    } else {
      double sum = 0;
      for (auto& value : values) value = -depth_of(bits.get(8)), sum += std::exp(value);
      tail = tail_of(bits.get(16));
      if (bits.failed()) damaged(where, "fewer bytes");
      const double largest = std::log1p(-tail) - std::log(sum);
      for (auto& value : values) value += largest;
    }
    for (int64_t i = 0; i < form.num_entries; ++i) {
      rows.ids_MK.push_back(i < count ? ids[i] : -1);
      rows.log_probabilities_MK.push_back(i < count ? static_cast<float>(values[i]) : -std::numeric_limits<float>::infinity());
    }
    rows.tail_mass_M.push_back(static_cast<float>(tail));
  }
  if (!bits.at_end()) damaged(where, "more bytes");
}

}  // namespace graft
