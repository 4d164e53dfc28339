#include "data/tokenizers/unicode_classes.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <vector>

namespace graft {
namespace {

struct Run {
  uint32_t first;
  uint32_t classes;
};
constexpr Run kRuns[] = {
#include "data/tokenizers/unicode_classes.inc"
};

// Two stages: 4352 pages of 256 code points, equal pages stored once (about 300 of them).
class Table {
 public:
  Table() {
    std::vector<std::vector<uint32_t>> pages;
    size_t run = 0;
    for (uint32_t page = 0; page < 0x1100; ++page) {
      std::vector<uint32_t> classes(256);
      for (uint32_t low = 0; low < 256; ++low) {
        while (run + 1 < std::size(kRuns) && kRuns[run + 1].first <= page * 256 + low) ++run;
        classes[low] = kRuns[run].classes;
      }
      const auto same = std::find(pages.rbegin(), pages.rend(), classes);
      if (same != pages.rend()) {
        index_[page] = static_cast<uint32_t>(std::distance(same, pages.rend()) - 1) * 256;
      } else {
        index_[page] = static_cast<uint32_t>(pages.size()) * 256;
        pages.push_back(classes);
      }
    }
    for (const auto& page : pages) classes_.insert(classes_.end(), page.begin(), page.end());
  }
  uint32_t operator[](uint32_t code) const { return code < 0x110000 ? classes_[index_[code >> 8] + (code & 255)] : 0; }

 private:
  std::array<uint32_t, 0x1100> index_{};
  std::vector<uint32_t> classes_;
};

}  // namespace

uint32_t unicode_classes(uint32_t code) {
  static const Table table;
  return table[code];
}

}  // namespace graft
