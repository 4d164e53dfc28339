// The kernels of delta attention, compiled for the CPU, against the recurrence in double: decays of heads and of channels, documents of one token and of
// several chunks, heads of every size, both gates.
#include <map>
#include <memory>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/delta_attention/delta_chunks.h"
#include "tests/emulator/block.h"
#include "tests/emulator/case_names.h"
#include "tests/emulator/delta_operator.h"
#include "tests/emulator/rows.h"

namespace graft::cuda {
namespace {

using emulator::Buffer;
using emulator::Doubles;

struct Case {
  std::vector<int32_t> lengths = {37};
  int key_heads = 1, heads = 2, key_size = 16, value_size = 24, taps = 4;
  bool tiled = false, channel_decay = false, silu_gate = true;
  float strongest = 1;     // rate of the decays
  float mean_b = 0;
  float same_keys = 0;     // how much of each key is the same for all tokens: A is large
  double harder = 1;       // than others, for 16 bits
  float taps_size = 0.5F;  // of the convolution's weights: queries and keys are about as large
};

// Inputs, results and scratch as the program has them.
template <typename Element>
class Problem {
 public:
  explicit Problem(const Case& c) : case_(c), size_(static_cast<size_t>(delta_size(c.key_size, c.value_size))) {
    auto& wide = wide_;
    for (const auto length : c.lengths) wide.offsets.push_back(wide.offsets.back() + length);
    wide.key_heads = static_cast<size_t>(c.key_heads);
    wide.heads = static_cast<size_t>(c.heads);
    wide.key_size = static_cast<size_t>(c.key_size);
    wide.value_size = static_cast<size_t>(c.value_size);
    wide.taps = static_cast<size_t>(c.taps);
    wide.tiled = c.tiled;
    wide.channel_decay = c.channel_decay;
    wide.silu_gate = c.silu_gate;
    const size_t N = wide.tokens();
    qkv_ = rows(N * wide.channels(), 1);
    for (size_t n = 0; n < N; ++n) {
      for (size_t i = 0; i < wide.key_heads * wide.key_size; ++i) {
        auto& key = (*qkv_)[n * wide.channels() + wide.key_heads * wide.key_size + i];
        key = from_float<Element>((1 - c.same_keys) * to_float(key) + c.same_keys * static_cast<float>(i % 5));
      }
    }
    a_ = rows(N * wide.decays(), 2);
    b_ = rows(N * wide.heads, 3, c.mean_b);
    z_ = rows(N * wide.heads * wide.value_size, 4);
    dout_ = rows(N * wide.heads * wide.value_size, 5);
    weights_ = floats(wide.channels() * wide.taps, 6, 0, c.taps_size);
    rates_ = floats(wide.heads, 7, c.strongest, 0.1F * c.strongest);
    biases_ = floats(wide.decays(), 8, -1, 0.5F);
    norm_ = floats(wide.value_size, 9, 1, 0.3F);
    wide.qkv = emulator::doubles(*qkv_);
    wide.a = emulator::doubles(*a_);
    wide.b = emulator::doubles(*b_);
    wide.z = emulator::doubles(*z_);
    wide.dout = emulator::doubles(*dout_);
    wide.weights = emulator::doubles(*weights_);
    wide.rates = emulator::doubles(*rates_);
    wide.biases = emulator::doubles(*biases_);
    wide.norm = emulator::doubles(*norm_);
    wide.run();

    const auto cut = delta_chunks(wide.offsets, delta_chunk_tokens(sizeof(Element) == 4, c.channel_decay));
    chunks_ = std::make_unique<Buffer<DeltaChunk>>(cut.chunks);
    first_chunks_ = std::make_unique<Buffer<int32_t>>(cut.first_chunks);
    const size_t padded = N * size_, num_chunks = cut.chunks.size();
    for (auto* buffer : {&queries_, &keys_}) *buffer = unwritten<Element>(padded * wide.key_heads);
    for (auto* buffer : {&values_, &solved_, &ended_, &doutput_, &dvalues_, &dqueries_, &dkeys_}) *buffer = unwritten<Element>(padded * wide.heads);
    decays_ = unwritten<float>(num_chunks * wide.heads * (c.channel_decay ? size_ : 1));
    states_ = unwritten<float>(num_chunks * wide.heads * size_ * size_);
    dstates_ = unwritten<float>(num_chunks * wide.heads * size_ * size_);
    out_ = unwritten<Element>(z_->size());
    dz_ = unwritten<Element>(z_->size());
    dqkv_ = unwritten<Element>(qkv_->size());
    da_ = unwritten<Element>(a_->size());
    db_ = unwritten<Element>(b_->size());
    problem = {emulator::kRowType<Element>, static_cast<int64_t>(N), c.key_heads, c.heads, c.key_size, c.value_size, c.taps, c.tiled, c.channel_decay, c.silu_gate,
               static_cast<float>(wide.epsilon), qkv_->data(), a_->data(), b_->data(), z_->data(), weights_->data(), rates_->data(), biases_->data(), norm_->data(),
               chunks_->data(), static_cast<int>(num_chunks), first_chunks_->data(), cut.num_documents(), queries_->data(), keys_->data(), values_->data(), solved_->data(),
               ended_->data(), decays_->data()};
  }

  DeltaAttentionForward forward() const { return {problem, states_->data(), out_->data()}; }
  DeltaAttentionBackward backward() const {
    return {problem, states_->data(), dout_->data(), dstates_->data(), doutput_->data(), dvalues_->data(), dqueries_->data(), dkeys_->data(), dqkv_->data(), da_->data(), db_->data(), dz_->data()};
  }

  void check() {
    ASSERT_EQ(launch(forward(), nullptr), nullptr);
    expect_near("out", *out_, wide_.out);
    ASSERT_EQ(launch(backward(), nullptr), nullptr);
    expect_near("dz", *dz_, wide_.dz);
    expect_near("db", *db_, wide_.db);
    // Gradients of decays are differences of larger sums: of q dq and k dk.
    expect_near("da", *da_, wide_.da, 1e-6 * std::max(0.1F, case_.strongest));
    expect_near("dqkv", *dqkv_, wide_.dqkv);
  }

  std::vector<Doubles> results() const {
    std::vector<Doubles> all;
    for (const auto* buffer : {out_.get(), dqkv_.get(), da_.get(), db_.get(), dz_.get()}) all.push_back(emulator::doubles(*buffer));
    return all;
  }

  DeltaProblem problem = {};

 private:
  template <typename T>
  static std::unique_ptr<Buffer<T>> unwritten(size_t size) { return std::make_unique<Buffer<T>>(size, from_float<T>(NAN)); }
  static std::unique_ptr<Buffer<Element>> rows(size_t size, uint32_t seed, float mean = 0) {
    auto buffer = std::make_unique<Buffer<Element>>(size);
    emulator::fill_normal(*buffer, seed, mean);
    return buffer;
  }
  static std::unique_ptr<Buffer<float>> floats(size_t size, uint32_t seed, float mean, float deviation) {
    auto buffer = std::make_unique<Buffer<float>>(size);
    emulator::fill_normal(*buffer, seed, mean, deviation);
    for (size_t i = 0; mean > 0 && i < size; ++i) (*buffer)[i] = std::abs((*buffer)[i]);
    return buffer;
  }
  // `floor`: what sums of terms of size 1 may miss, where the result is (nearly) nothing.
  void expect_near(const char* what, const Buffer<Element>& got, const Doubles& wanted, double floor = 1e-7) {
    ASSERT_EQ(got.size(), wanted.size());
    double squares = 0, missed = 0;
    for (const double value : wanted) squares += value * value;
    const bool wide = emulator::kIsFloat32<Element>;
    const double count = static_cast<double>(std::max<size_t>(1, wanted.size())), typical = std::sqrt(squares / count), harder = wide ? 1 : case_.harder;
    for (size_t i = 0; i < wanted.size(); ++i) {
      const double miss = to_float(got[i]) - wanted[i];
      missed += miss * miss;
      ASSERT_NEAR(miss, 0, harder * (wide ? 2e-5 : 6e-2) * (std::abs(wanted[i]) + typical) + 10 * floor) << what << " at " << i << ": " << to_float(got[i]) << " for " << wanted[i];
    }
    EXPECT_LE(std::sqrt(missed), harder * (wide ? 2e-6 : 1e-2) * std::sqrt(squares) + floor * std::sqrt(count)) << what;
  }

  const Case& case_;
  size_t size_;
  emulator::DeltaOperator wide_;
  std::unique_ptr<Buffer<Element>> qkv_, a_, b_, z_, dout_, queries_, keys_, values_, solved_, ended_, doutput_, dvalues_, dqueries_, dkeys_, out_, dqkv_, da_, db_, dz_;
  std::unique_ptr<Buffer<float>> weights_, rates_, biases_, norm_, decays_, states_, dstates_;
  std::unique_ptr<Buffer<DeltaChunk>> chunks_;
  std::unique_ptr<Buffer<int32_t>> first_chunks_;
};

const std::map<std::string, Case>& cases() {
  static const std::map<std::string, Case> cases = {
      {"one_chunk", {}},
      {"one_token", {.lengths = {1}}},
      {"no_tokens", {.lengths = {0}}},
      {"documents", {.lengths = {70, 1, 0, 33, 2, 64, 65}, .heads = 1}},
      {"long_document", {.lengths = {200}, .heads = 1}},
      {"two_documents", {.lengths = {100, 2}, .heads = 1}},
      {"two_chunks", {.lengths = {70}, .heads = 1}},
      {"grouped_heads", {.lengths = {9}, .key_heads = 2, .heads = 6}},
      {"tiled_heads", {.lengths = {9}, .key_heads = 2, .heads = 6, .tiled = true}},
      {"large_heads", {.lengths = {70}, .heads = 1, .key_size = 128, .value_size = 128}},
      {"large_keys", {.lengths = {35}, .heads = 1, .key_size = 72, .value_size = 8}},
      {"large_values", {.lengths = {35}, .heads = 1, .key_size = 8, .value_size = 104}},
      {"sigmoid_gate", {.silu_gate = false}},
      {"one_tap", {.lengths = {9, 40}, .taps = 1}},
      {"eight_taps", {.lengths = {3, 36}, .heads = 1, .taps = 8}},
      {"strong_decay", {.lengths = {80}, .strongest = 60}},
      {"small_rows", {.lengths = {20}, .heads = 1, .taps_size = 1e-3F}},   // so that the norms' epsilon counts
      {"no_decay", {.lengths = {80}, .strongest = 0}},
      {"all_written", {.lengths = {80}, .strongest = 0.01F, .mean_b = 5, .same_keys = 0.9F, .harder = 3}},
      {"none_written", {.mean_b = -120}},
      {"channel_decay", {.channel_decay = true}},
      {"channel_two_documents", {.lengths = {35, 2}, .heads = 1, .channel_decay = true, .silu_gate = false}},
      {"channel_three_chunks", {.lengths = {66}, .heads = 1, .value_size = 8, .channel_decay = true}},   // of which one has a state before and after it
      {"channel_one_token", {.lengths = {1}, .channel_decay = true}},
      {"channel_documents", {.lengths = {70, 1, 0, 32, 2}, .key_heads = 2, .heads = 2, .channel_decay = true, .silu_gate = false}},
      {"channel_strong_decay", {.lengths = {70}, .channel_decay = true, .strongest = 60}},
      {"channel_large", {.lengths = {35}, .heads = 1, .key_size = 128, .value_size = 128, .channel_decay = true}},
      {"channel_grouped", {.lengths = {40}, .key_heads = 1, .heads = 2, .key_size = 40, .value_size = 8, .channel_decay = true}},
  };
  return cases;
}

class DeltaAttention : public testing::TestWithParam<std::string> {
 protected:
  const Case& example() const { return cases().at(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Cuda, DeltaAttention, testing::ValuesIn(emulator::names_of(cases())), [](const auto& info) { return info.param; });

TEST_P(DeltaAttention, InFloat32) { Problem<float>(example()).check(); }
TEST_P(DeltaAttention, InBfloat16) { Problem<Bfloat16>(example()).check(); }

TEST(DeltaAttention, GivesTheSameBitsWhateverTheOrderOfBlocks) {
  const Case example = {.lengths = {70, 3}, .key_heads = 1, .heads = 2};
  std::vector<std::vector<Doubles>> runs;
  for (const uint64_t seed : {1, 2}) {
    emulator::settings().seed = seed;
    Problem<Bfloat16> whole(example);
    ASSERT_EQ(launch(whole.forward(), nullptr), nullptr);
    ASSERT_EQ(launch(whole.backward(), nullptr), nullptr);
    runs.push_back(whole.results());
  }
  emulator::settings().seed = 1;
  EXPECT_EQ(runs[0], runs[1]);
}

TEST(DeltaAttention, RefusesWhatNoKernelTakes) {
  const Case example;
  Problem<float> whole(example);
  const auto refused = [&](const auto& spoil) {
    auto forward = whole.forward();
    auto backward = whole.backward();
    spoil(forward.problem);
    spoil(backward.problem);
    const std::string words = launch(forward, nullptr);
    EXPECT_EQ(words, launch(backward, nullptr));
    return words;
  };
  EXPECT_THAT(refused([](DeltaProblem& p) { p.type = RowType::kFloat16; }), testing::HasSubstr("float16"));
  EXPECT_THAT(refused([](DeltaProblem& p) { p.key_size = 132; }), testing::HasSubstr("size"));
  EXPECT_THAT(refused([](DeltaProblem& p) { p.value_size = 18; }), testing::HasSubstr("16 bytes"));
  EXPECT_THAT(refused([](DeltaProblem& p) { p.taps = 9; }), testing::HasSubstr("length"));
}

TEST(DeltaChunks, AreCutWithinDocuments) {
  const std::vector<int32_t> offsets = {0, 5, 5, 6, 14};
  const auto cut = delta_chunks(offsets, 4);
  const std::vector<std::vector<int32_t>> expected = {{0, 5, 0, 4}, {0, 5, 4, 1}, {5, 6, 5, 1}, {6, 14, 6, 4}, {6, 14, 10, 4}};
  ASSERT_EQ(cut.chunks.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    const auto& chunk = cut.chunks[i];
    EXPECT_EQ((std::vector<int32_t>{chunk.document_begin, chunk.document_end, chunk.first, chunk.count}), expected[i]) << i;
  }
  EXPECT_EQ(cut.first_chunks, (std::vector<int32_t>{0, 2, 3, 5}));
  EXPECT_EQ(cut.num_documents(), 3);
  EXPECT_EQ(delta_chunks(std::vector<int32_t>{0, 0}, 4).num_documents(), 0);
}

}  // namespace
}  // namespace graft::cuda
