// The attention kernels, compiled for the CPU, against sums in double over whole documents: every head size, element type and option, both passes.
#include <cmath>
#include <deque>
#include <map>
#include <optional>
#include <random>

#include <gtest/gtest.h>

#include "kernels/attention/attention_tiles.h"
#include "kernels/cuda/elements.cuh"
#include "tests/emulator/buffer.h"
#include "tests/emulator/case_names.h"

namespace graft::cuda {
namespace {

using emulator::Buffer;

struct Case {
  int head_size = 64, value_size = 64, num_heads = 2, num_kv_heads = 1;
  std::vector<int32_t> offsets = {0, 70};
  int window = 0, shared_prefix = 0;
  float softcap = 0;
  bool slopes = false, sinks = false, selected = false;
};

template <typename Element>
constexpr RowType kType = sizeof(Element) == 4 ? RowType::kFloat32 : std::is_same<Element, Bfloat16>::value ? RowType::kBfloat16 : RowType::kFloat16;

using Doubles = std::vector<double>;

// Inputs as a kernel takes them: [N, (H + K) * D + K * V].
template <typename Element>
struct Inputs {
  const Case& of;
  int num_tokens, row;
  float scale;
  Buffer<Element> rows, gradient;
  Buffer<float> slopes, sinks;
  int selected_stride;
  Buffer<uint8_t> selected;

  explicit Inputs(const Case& c)
      : of(c), num_tokens(c.offsets.back()), row((c.num_heads + c.num_kv_heads) * c.head_size + c.num_kv_heads * c.value_size), scale(1 / std::sqrt(static_cast<float>(c.head_size))),
        rows(static_cast<size_t>(num_tokens * row)), gradient(static_cast<size_t>(num_tokens * c.num_heads * c.value_size)), slopes(static_cast<size_t>(c.num_heads)),
        sinks(static_cast<size_t>(c.num_heads)), selected_stride((num_tokens + c.shared_prefix + 7) / 8), selected(static_cast<size_t>(num_tokens * selected_stride)) {
    std::mt19937 random(11);
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = from_float<Element>(normal(random));
    for (size_t i = 0; i < gradient.size(); ++i) gradient[i] = from_float<Element>(normal(random));
    for (size_t h = 0; h < slopes.size(); ++h) slopes[h] = 0.3F / static_cast<float>(h + 1);
    for (size_t h = 0; h < sinks.size(); ++h) sinks[h] = normal(random);
    for (size_t i = 0; i < selected.size(); ++i) selected[i] = static_cast<uint8_t>(random());
    for (size_t d = 0; d + 1 < c.offsets.size(); ++d) {   // every query sees itself
      for (int n = c.offsets[d]; n < c.offsets[d + 1]; ++n) {
        const int key = n - c.offsets[d] + before(d);
        selected[static_cast<size_t>(n * selected_stride + key / 8)] |= static_cast<uint8_t>(1 << key % 8);
      }
    }
  }

  int before(size_t d) const { return of.offsets[d] == 0 ? 0 : of.shared_prefix; }
  double at(int token, int column) const { return to_float(rows[static_cast<size_t>(token * row + column)]); }
  double query(int token, int head, int c) const { return at(token, head * of.head_size + c); }
  double key(int token, int head, int c) const { return at(token, (of.num_heads + head) * of.head_size + c); }
  double value(int token, int head, int c) const { return at(token, (of.num_heads + of.num_kv_heads) * of.head_size + head * of.value_size + c); }
  double gradient_of(int token, int head, int c) const { return to_float(gradient[static_cast<size_t>((token * of.num_heads + head) * of.value_size + c)]); }
};

struct Results {
  Doubles out, query_gradient, key_gradient, value_gradient;   // [N, heads * size]
};

template <typename Element>
Results expected(const Inputs<Element>& in) {
  const Case& c = in.of;
  const auto n = static_cast<size_t>(in.num_tokens);
  Results results{Doubles(n * c.num_heads * c.value_size), Doubles(n * c.num_heads * c.head_size), Doubles(n * c.num_kv_heads * c.head_size), Doubles(n * c.num_kv_heads * c.value_size)};
  for (size_t d = 0; d + 1 < c.offsets.size(); ++d) {
    const int before = in.before(d);
    for (int token = c.offsets[d]; token < c.offsets[d + 1]; ++token) {
      const int query = before + token - c.offsets[d];
      const auto token_of = [&](int key) { return key < before ? key : c.offsets[d] + key - before; };
      for (int h = 0; h < c.num_heads; ++h) {
        const int kv = h / (c.num_heads / c.num_kv_heads);
        std::vector<int> keys;
        Doubles scores, slopes;
        double sum = 0, largest = -INFINITY;
        for (int key = 0; key <= query; ++key) {
          if (c.window > 0 && key <= query - c.window) continue;
          if (c.selected && (in.selected[static_cast<size_t>(token * in.selected_stride + key / 8)] >> key % 8 & 1) == 0) continue;
          double score = 0, slope = 1;
          for (int i = 0; i < c.head_size; ++i) score += in.query(token, h, i) * in.key(token_of(key), kv, i);
          score *= in.scale;
          if (c.softcap > 0) {
            const double t = std::tanh(score / c.softcap);
            score = c.softcap * t;
            slope = 1 - t * t;
          }
          if (c.slopes) score += in.slopes[static_cast<size_t>(h)] * (key - query);
          keys.push_back(key);
          scores.push_back(score);
          slopes.push_back(slope);
          largest = std::max(largest, score);
        }
        if (c.sinks) largest = std::max<double>(largest, in.sinks[static_cast<size_t>(h)]);
        for (auto& score : scores) sum += score = std::exp(score - largest);
        if (c.sinks) sum += std::exp(in.sinks[static_cast<size_t>(h)] - largest);
        double delta = 0;
        Doubles dp(keys.size());
        for (size_t k = 0; k < keys.size(); ++k) {
          scores[k] /= sum;
          for (int i = 0; i < c.value_size; ++i) {
            const double value = in.value(token_of(keys[k]), kv, i), gradient = in.gradient_of(token, h, i);
            results.out[static_cast<size_t>((token * c.num_heads + h) * c.value_size + i)] += scores[k] * value;
            results.value_gradient[static_cast<size_t>((token_of(keys[k]) * c.num_kv_heads + kv) * c.value_size + i)] += scores[k] * gradient;
            dp[k] += gradient * value;
          }
          delta += scores[k] * dp[k];
        }
        for (size_t k = 0; k < keys.size(); ++k) {
          const double ds = scores[k] * (dp[k] - delta) * slopes[k] * in.scale;
          for (int i = 0; i < c.head_size; ++i) {
            results.query_gradient[static_cast<size_t>((token * c.num_heads + h) * c.head_size + i)] += ds * in.key(token_of(keys[k]), kv, i);
            results.key_gradient[static_cast<size_t>((token_of(keys[k]) * c.num_kv_heads + kv) * c.head_size + i)] += ds * in.query(token, h, i);
          }
        }
      }
    }
  }
  return results;
}

template <typename Element>
double relative_error(const Buffer<Element>& got, const Doubles& expected) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double value = to_float(got[i]);
    difference += (value - expected[i]) * (value - expected[i]);
    size += expected[i] * expected[i];
  }
  return std::sqrt(difference / std::max(size, 1e-2 * static_cast<double>(expected.size())));   // of one key the scores' gradient is zero
}

template <typename Element>
AttentionProblem problem_of(const Inputs<Element>& in) {
  const Case& c = in.of;
  const auto rows_of = [&](int first_column, int size) { return HeadRows{in.rows.data() + first_column, in.row, size}; };
  return {rows_of(0, c.head_size), rows_of(c.num_heads * c.head_size, c.head_size), rows_of((c.num_heads + c.num_kv_heads) * c.head_size, c.value_size), kType<Element>,
          c.num_heads, c.num_kv_heads, c.head_size, c.value_size, in.scale, c.softcap, c.window, c.shared_prefix,
          c.slopes ? in.slopes.data() : nullptr, c.sinks ? in.sinks.data() : nullptr, c.selected ? in.selected.data() : nullptr, in.selected_stride, in.num_tokens};
}

template <typename Element>
constexpr double kTolerance = sizeof(Element) == 4 ? 2e-6 : std::is_same<Element, Bfloat16>::value ? 8e-3 : 1e-3;

// A document's tokens come in two batches, or three: what the later ones compute is what one batch does.
template <typename Element>
void check_cached(const Case& c) {
  const Inputs<Element> in(c);
  const auto wanted = expected(in);
  const size_t num_documents = c.offsets.size() - 1;
  std::deque<Buffer<Element>> keys, values;
  std::vector<CachedRows> addresses;
  std::vector<int32_t> cached(num_documents, 0);
  for (size_t d = 0; d < num_documents; ++d) {
    const auto rows = static_cast<size_t>(c.offsets[d + 1] - c.offsets[d]) * c.num_kv_heads;
    keys.emplace_back(rows * c.head_size, from_float<Element>(NAN));
    values.emplace_back(rows * c.value_size, from_float<Element>(NAN));
  }
  for (size_t d = 0; d < num_documents; ++d) addresses.push_back({keys[d].data(), values[d].data()});
  const Buffer<CachedRows> caches(addresses);
  for (const double share : {0.6, 0.9, 1.0}) {
    std::vector<int32_t> offsets = {0}, tokens;   // of this batch; which of the whole
    for (size_t d = 0; d < num_documents; ++d) {
      const auto end = static_cast<int32_t>(std::ceil(share * (c.offsets[d + 1] - c.offsets[d])));
      for (int32_t n = cached[d]; n < end; ++n) tokens.push_back(c.offsets[d] + n);
      offsets.push_back(static_cast<int32_t>(tokens.size()));
    }
    Buffer<Element> rows(tokens.size() * in.row), out(tokens.size() * c.num_heads * c.value_size);
    Buffer<uint8_t> selected(tokens.size() * in.selected_stride);
    Buffer<float> log_sums(tokens.size() * c.num_heads);
    Doubles part;
    for (size_t n = 0; n < tokens.size(); ++n) {
      const auto from = static_cast<size_t>(tokens[n]), width = static_cast<size_t>(c.num_heads * c.value_size);
      for (size_t i = 0; i < static_cast<size_t>(in.row); ++i) rows[n * in.row + i] = in.rows[from * in.row + i];
      for (size_t i = 0; i < static_cast<size_t>(in.selected_stride); ++i) selected[n * in.selected_stride + i] = in.selected[from * in.selected_stride + i];
      part.insert(part.end(), wanted.out.begin() + static_cast<std::ptrdiff_t>(from * width), wanted.out.begin() + static_cast<std::ptrdiff_t>((from + 1) * width));
    }
    auto problem = problem_of(in);
    for (auto* heads : {&problem.queries, &problem.keys, &problem.values}) heads->data = rows.data() + (static_cast<const Element*>(heads->data) - in.rows.data());
    if (c.selected) problem.selected_NB = selected.data();
    problem.num_tokens = static_cast<int>(tokens.size());
    const Buffer<AttentionTile> tiles(attention_tiles(TileOf::kQueries, offsets, 0, c.window, attention_query_rows(sizeof(Element) == 4, false, attention_head_size(c.head_size, c.value_size)), cached));
    const auto num_tiles = static_cast<int>(tiles.size());
    ASSERT_EQ(launch(AttentionCacheAppend{problem.keys, problem.values, problem.type, c.num_kv_heads, c.head_size, c.value_size, tiles.data(), num_tiles, caches.data()}, nullptr), nullptr);
    problem.keys = {nullptr, int64_t(c.num_kv_heads) * c.head_size, c.head_size};
    problem.values = {nullptr, int64_t(c.num_kv_heads) * c.value_size, c.value_size};
    ASSERT_EQ(launch(AttentionForward{problem, tiles.data(), num_tiles, {out.data(), int64_t(c.num_heads) * c.value_size, c.value_size}, log_sums.data(), caches.data()}, nullptr), nullptr);
    EXPECT_LE(relative_error(out, part), kTolerance<Element>) << share;
    for (size_t d = 0; d < num_documents; ++d) cached[d] += offsets[d + 1] - offsets[d];
  }
}

template <typename Element>
void check(const Case& c) {
  const Inputs<Element> in(c);
  const auto n = static_cast<size_t>(in.num_tokens);
  Buffer<Element> out(n * c.num_heads * c.value_size), query_gradient(n * c.num_heads * c.head_size), key_gradient(n * c.num_kv_heads * c.head_size), value_gradient(n * c.num_kv_heads * c.value_size);
  Buffer<float> log_sums(n * c.num_heads), delta(n * c.num_heads);
  const auto own_rows = [&](auto& buffer, int heads, int size) { return MutableHeadRows{buffer.data(), int64_t(heads) * size, size}; };
  const auto read_rows = [&](auto& buffer, int heads, int size) { return HeadRows{buffer.data(), int64_t(heads) * size, size}; };
  const AttentionProblem problem = problem_of(in);
  const int size = attention_head_size(c.head_size, c.value_size);
  const bool is_plain = attention_is_plain(kType<Element>, c.softcap > 0, c.slopes, c.selected, false);
  const Buffer<AttentionTile> query_tiles(attention_tiles(TileOf::kQueries, c.offsets, c.shared_prefix, c.window, attention_query_rows(sizeof(Element) == 4, is_plain, size)));
  const Buffer<AttentionTile> key_tiles(attention_tiles(TileOf::kKeys, c.offsets, c.shared_prefix, c.window, attention_key_rows(sizeof(Element) == 4, size)));
  const Buffer<int32_t> offsets(c.offsets);
  ASSERT_EQ(launch(AttentionForward{problem, query_tiles.data(), static_cast<int>(query_tiles.size()), own_rows(out, c.num_heads, c.value_size), log_sums.data(), nullptr}, nullptr), nullptr);
  ASSERT_EQ(launch(AttentionBackward{problem, query_tiles.data(), static_cast<int>(query_tiles.size()), key_tiles.data(), static_cast<int>(key_tiles.size()), offsets.data(),
                                               static_cast<int>(c.offsets.size()) - 1, read_rows(out, c.num_heads, c.value_size), read_rows(in.gradient, c.num_heads, c.value_size),
                                               log_sums.data(), delta.data(), own_rows(query_gradient, c.num_heads, c.head_size), own_rows(key_gradient, c.num_kv_heads, c.head_size),
                                               own_rows(value_gradient, c.num_kv_heads, c.value_size)},
                             nullptr),
            nullptr);
  const auto wanted = expected(in);
  const double tolerance = kTolerance<Element>;
  EXPECT_LE(relative_error(out, wanted.out), tolerance);
  EXPECT_LE(relative_error(query_gradient, wanted.query_gradient), tolerance);
  EXPECT_LE(relative_error(key_gradient, wanted.key_gradient), tolerance);
  EXPECT_LE(relative_error(value_gradient, wanted.value_gradient), tolerance);
}

const std::map<std::string, Case>& cases() {
  static const std::map<std::string, Case> cases = {
      {"head_64", {}},
      {"head_80", {.head_size = 80, .value_size = 80}},
      {"head_96", {.head_size = 96, .value_size = 96}},
      {"head_128", {.head_size = 128, .value_size = 128}},
      {"head_192", {.head_size = 192, .value_size = 192}},
      {"head_256", {.head_size = 256, .value_size = 256}},
      {"latent_192_128", {.head_size = 192, .value_size = 128, .num_kv_heads = 2}},
      {"smaller_than_its_kernel", {.head_size = 24, .value_size = 24}},
      {"unequal_small", {.head_size = 40, .value_size = 16}},
      {"documents", {.num_heads = 3, .num_kv_heads = 3, .offsets = {0, 1, 1, 66, 67, 150}}},
      {"grouped_queries", {.head_size = 16, .value_size = 16, .num_heads = 6, .num_kv_heads = 2, .offsets = {0, 33, 90}}},
      {"window_below_a_tile", {.offsets = {0, 150, 160}, .window = 9}},
      {"window_over_tiles", {.offsets = {0, 200}, .window = 70}},
      {"window_of_one", {.offsets = {0, 5, 80}, .window = 1}},
      {"softcap", {.softcap = 0.7F}},
      {"alibi", {.offsets = {0, 20, 90}, .slopes = true}},
      {"sinks", {.offsets = {0, 3, 90}, .sinks = true}},
      {"window_and_sinks", {.offsets = {0, 130}, .window = 20, .sinks = true}},
      {"selected_keys", {.offsets = {0, 40, 120}, .selected = true}},
      {"shared_prefix", {.offsets = {0, 90, 130, 131, 200}, .shared_prefix = 37}},
      {"prefix_of_a_whole_tile", {.offsets = {0, 64, 100, 180}, .shared_prefix = 64}},
      {"prefix_before_a_long_document", {.offsets = {0, 60, 260}, .shared_prefix = 37}},
      {"prefix_and_window", {.offsets = {0, 90, 130, 230}, .window = 50, .shared_prefix = 70}},
      {"prefix_and_selected_keys", {.offsets = {0, 50, 90, 120}, .shared_prefix = 20, .selected = true}},
      {"all_at_once", {.head_size = 32, .value_size = 32, .num_heads = 4, .num_kv_heads = 2, .offsets = {0, 40, 41, 41, 130}, .window = 33, .shared_prefix = 11, .softcap = 2, .slopes = true, .sinks = true, .selected = true}},
  };
  return cases;
}

class Attention : public testing::TestWithParam<std::string> {
 protected:
  const Case& example() const { return cases().at(GetParam()); }
};
class CachedAttention : public Attention {};
INSTANTIATE_TEST_SUITE_P(Cuda, Attention, testing::ValuesIn(emulator::names_of(cases())), [](const auto& info) { return info.param; });
INSTANTIATE_TEST_SUITE_P(Cuda, CachedAttention, testing::ValuesIn(emulator::names_of(cases(), [](const Case& c) { return c.shared_prefix == 0; })),   // a prefix is of one batch
                         [](const auto& info) { return info.param; });

TEST_P(Attention, InBfloat16) { check<Bfloat16>(example()); }
TEST_P(Attention, InFloat16) { check<Float16>(example()); }
TEST_P(Attention, InFloat32) { check<float>(example()); }

TEST_P(CachedAttention, InBfloat16) { check_cached<Bfloat16>(example()); }
TEST_P(CachedAttention, InFloat16) { check_cached<Float16>(example()); }
TEST_P(CachedAttention, InFloat32) { check_cached<float>(example()); }

}  // namespace
}  // namespace graft::cuda
