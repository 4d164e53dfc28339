#include "trainer/exports/input_products.h"

#include <algorithm>

#include <ATen/ops/zeros.h>

namespace graft {

InputProducts::InputProducts(const Decoder& decoder, Batches run, int64_t budget_bytes) : decoder_(decoder), run_(std::move(run)), budget_(budget_bytes) {}

std::span<const double> InputProducts::of(const WeightRule& rule) {
  if (unseen_.contains(&rule)) return {};
  const auto known = of_rule_.find(&rule);
  if (known == of_rule_.end() || !sums_.contains(known->second)) {
    wanted_ = &rule;
    pass();
  }
  const auto found = of_rule_.find(&rule);
  if (found == of_rule_.end()) {   // an expert that no token chose, or nothing that shows its inputs
    unseen_.insert(&rule);
    return {};
  }
  const auto sum = sums_.at(found->second)->to(at::kCPU, at::kDouble).contiguous();
  answer_.assign(sum.const_data_ptr<double>(), sum.const_data_ptr<double>() + sum.numel());
  return answer_;
}

// From the wanted matrix on, in the order in which the decoder multiplies.
void InputProducts::pass() {
  sums_.clear();
  held_ = 0;
  skipped_.clear();
  reached_ = full_ = false;
  run_([&](Batch batch) {
    batch.observer = this;
    decoder_.forward(batch);
    last_input_ = at::Tensor();
    last_sum_ = nullptr;
  });
}

void InputProducts::see(const Linear& linear, int64_t expert, const at::Tensor& p_NC) {
  const Key key = {&linear, expert};
  const auto parts = static_cast<size_t>(linear.parts());
  const auto begin = linear.rules.begin() + static_cast<int64_t>(linear.is_bank() ? static_cast<size_t>(expert) * parts : 0);
  const auto end = linear.is_bank() ? begin + static_cast<int64_t>(parts) : linear.rules.end();
  for (auto rule = begin; rule != end; ++rule) of_rule_[*rule] = key;
  reached_ = reached_ || std::find(begin, end, wanted_) != end;
  const bool same_input = last_input_.defined() && last_input_.is_same(p_NC);
  if (skipped_.contains(key)) return;
  auto& sum = sums_[key];
  if (!sum) {
    const int64_t bytes = same_input && last_sum_ ? 0 : 4 * p_NC.size(1) * p_NC.size(1);
    full_ = full_ || (reached_ && held_ > 0 && held_ + bytes > budget_);
    if (!reached_ || full_) {
      sums_.erase(key);
      skipped_.insert(key);
      return;
    }
    held_ += bytes;
    if (bytes == 0) {
      sum = last_sum_;
      return;   // this batch's part is in it
    }
    sum = std::make_shared<at::Tensor>(at::zeros({p_NC.size(1), p_NC.size(1)}, p_NC.options().dtype(at::kFloat)));
  } else if (same_input && sum == last_sum_) {
    return;
  }
  const auto p = p_NC.to(at::kFloat);
  sum->addmm_(p.t(), p);
  last_input_ = p_NC;
  last_sum_ = sum;
}

}  // namespace graft
