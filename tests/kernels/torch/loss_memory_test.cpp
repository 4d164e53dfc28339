// The losses' memory does not grow with the vocabulary.
#include <fstream>
#include <string>

#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "kernels/linear_kl/linear_kl.h"
#include "tests/kernels/torch/operators.h"

namespace graft {
namespace {

int64_t status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(key + ":")) return std::stoll(line.substr(key.size() + 1)) * 1024;
  }
  return -1;
}

// The most that the process had in memory during f, over what it had before.
template <typename Function>
int64_t peak_bytes(const Function& f) {
  std::ofstream("/proc/self/clear_refs") << "5";   // the peak is what there is now
  const int64_t before = status_bytes("VmRSS");
  EXPECT_LT(status_bytes("VmHWM"), before + (int64_t{8} << 20)) << "this machine does not let a process reset its peak";
  f();
  return status_bytes("VmHWM") - before;
}

TEST(LossMemory, IsFlatInTheVocabulary) {
  constexpr int64_t kRows = 200, kSmall = 32'000, kLarge = 256'000;   // 195 MiB of logits each of student and teacher
  const auto hidden = testing::random_tensor({kRows, 16}, 1).to(at::kBFloat16);
  const std::vector<int32_t> labels(kRows, 7), ids(kRows, 11);
  const std::vector<float> log_p(kRows, -0.7f);
  std::vector<int64_t> peaks[2];
  for (const int64_t vocab : {kSmall, kLarge}) {
    const auto weight = testing::frozen(testing::random_tensor({vocab, 16}, 2));
    const LinearHead capped(weight, 30);
    const WholeHead head(capped);
    auto& of = peaks[vocab == kLarge];
    of.push_back(peak_bytes([&] { linear_cross_entropy(hidden, head, labels, {}, {}); }));
    KlOptions options;
    options.divergence = Divergence::kMixture;
    of.push_back(peak_bytes([&] { linear_kl(hidden, head, HiddenTeacher{hidden, head}, {}, options); }));
    of.push_back(peak_bytes([&] { linear_kl(hidden, head, SparseTeacher{1, ids, log_p, {}, 1}, {}, options); }));
  }
  for (size_t i = 0; i < peaks[0].size(); ++i) EXPECT_LT(peaks[1][i], peaks[0][i] + (int64_t{64} << 20)) << "loss " << i;
  EXPECT_LT(peaks[1][0] + peaks[1][1], int64_t{160} << 20) << "its buffer takes 64 MiB";
}

}  // namespace
}  // namespace graft
