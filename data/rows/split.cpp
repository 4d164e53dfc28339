#include "data/rows/split.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "checkpoints/hash.h"
#include "data/rows/normalised_text.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

// Rows of one normalised text.
struct TextGroup {
  std::string hash;
  std::string label;  // the least of its labels: a text with two labels still has one place
  std::vector<int64_t> rows;
};

struct Stratum {
  std::vector<TextGroup> groups;  // in the order of their hashes
  int64_t num_rows = 0;
  int64_t quota = 0;
  double remainder = 0;
};

std::map<std::string, Stratum> strata_of(const std::vector<Row>& rows) {
  std::map<std::string, TextGroup> groups;
  for (size_t index = 0; index < rows.size(); ++index) {
    const std::string hash = sha256(normalised_text(rows[index].text));
    const std::string label = rows[index].label.value_or("");
    auto [entry, is_new] = groups.try_emplace(hash, TextGroup{hash, label, {}});
    entry->second.label = std::min(entry->second.label, label);
    entry->second.rows.push_back(static_cast<int64_t>(index));
  }
  std::map<std::string, Stratum> strata;
  for (auto& [hash, group] : groups) {
    Stratum& stratum = strata[group.label];
    stratum.num_rows += static_cast<int64_t>(group.rows.size());
    stratum.groups.push_back(std::move(group));
  }
  return strata;
}

// Largest remainders: each label gets floor(fraction * rows), then the labels with the largest remainders one row more.
void set_quotas(std::map<std::string, Stratum>& strata, double fraction, int64_t total) {
  int64_t left = total;
  std::vector<std::pair<std::string, Stratum*>> order;
  for (auto& [label, stratum] : strata) {
    const double share = fraction * static_cast<double>(stratum.num_rows);
    stratum.quota = static_cast<int64_t>(std::floor(share));
    stratum.remainder = share - std::floor(share);
    left -= stratum.quota;
    order.emplace_back(sha256(label), &stratum);  // ties by hash, so that no part of the alphabet is favoured
  }
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return a.second->remainder != b.second->remainder ? a.second->remainder > b.second->remainder : a.first < b.first;
  });
  for (size_t index = 0; index < order.size() && left > 0; ++index, --left) ++order[index].second->quota;
}

}  // namespace

std::vector<int64_t> validation_rows(const std::vector<Row>& rows, double fraction) {
  if (!(fraction >= 0 && fraction < 1))
    fail("data", "expected validation_fraction from 0 to below 1, got {} — 0.1 is usual", fraction);
  std::vector<int64_t> chosen;
  if (fraction == 0) return chosen;
  auto strata = strata_of(rows);
  set_quotas(strata, fraction, std::llround(fraction * static_cast<double>(rows.size())));
  for (auto& [label, stratum] : strata) {
    int64_t taken = 0;
    size_t texts_left = stratum.groups.size();
    for (const TextGroup& group : stratum.groups) {
      const auto size = static_cast<int64_t>(group.rows.size());
      if (texts_left == 1) break;
      if (taken + size > stratum.quota) continue;
      chosen.insert(chosen.end(), group.rows.begin(), group.rows.end());
      taken += size;
      --texts_left;
    }
  }
  if (chosen.empty()) {
    fail("data",
         "expected rows for validation, got none of {} with validation_fraction {} — raise it, or name a validation file",
         rows.size(), fraction);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

}  // namespace graft
