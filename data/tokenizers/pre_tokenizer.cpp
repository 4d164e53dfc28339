#include "data/tokenizers/pre_tokenizer.h"

#include <algorithm>

#include "data/tokenizers/first_bytes.h"
#include "data/tokenizers/normalizer.h"
#include "data/tokenizers/regex_splitter.h"
#include "data/tokenizers/scanners.h"
#include "data/tokenizers/unicode_classes.h"
#include "kernels/common/error.h"

namespace graft {

class SplitStep {
 public:
  virtual ~SplitStep() = default;
  virtual void split(std::string_view text, std::vector<std::string_view>& pieces) const = 0;
};

namespace {

class ScannerStep : public SplitStep {
 public:
  explicit ScannerStep(Scanner scan) : scan_(scan) {}
  void split(std::string_view text, std::vector<std::string_view>& pieces) const override {
    for (size_t position = 0; position < text.size();) {
      const size_t end = std::max(scan_(text, position), position + 1);
      pieces.push_back(text.substr(position, end - position));
      position = end;
    }
  }

 private:
  Scanner scan_;
};

// Isolates every character that begins with one of some bytes.
class FirstBytesStep : public SplitStep {
 public:
  explicit FirstBytesStep(const ByteSet& bytes) : bytes_(bytes) {}
  void split(std::string_view text, std::vector<std::string_view>& pieces) const override {
    size_t begin = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      if (!bytes_[static_cast<unsigned char>(text[i])]) continue;
      const Utf8Char found = decode_utf8(text, i);
      if (found.code == kInvalidUtf8) continue;
      if (i > begin) pieces.push_back(text.substr(begin, i - begin));
      pieces.push_back(text.substr(i, found.length));
      begin = i + found.length;
      i = begin - 1;
    }
    if (begin < text.size()) pieces.push_back(text.substr(begin));
  }

 private:
  ByteSet bytes_;
};

struct Part {
  size_t begin, end;
  bool matched;
};

// What becomes of matches and gaps, which cover the text in turn: the reference library's SplitDelimiterBehavior.
std::vector<Part> behave(std::vector<Part> parts, SplitBehavior behavior) {
  if (behavior == SplitBehavior::kIsolated) return parts;
  if (behavior == SplitBehavior::kRemoved) {
    std::erase_if(parts, [](const Part& part) { return part.matched; });
    return parts;
  }
  const bool backwards = behavior == SplitBehavior::kMergedWithNext;
  if (backwards) std::reverse(parts.begin(), parts.end());
  std::vector<Part> merged;
  bool previous = false;
  for (const Part& part : parts) {
    const bool joins = behavior == SplitBehavior::kContiguous ? part.matched == previous : part.matched && !previous;
    previous = part.matched;
    if (joins && !merged.empty()) {
      merged.back().begin = std::min(merged.back().begin, part.begin);
      merged.back().end = std::max(merged.back().end, part.end);
    } else {
      merged.push_back(part);
    }
  }
  if (backwards) std::reverse(merged.begin(), merged.end());
  return merged;
}

class RegexStep : public SplitStep {
 public:
  RegexStep(std::string_view pattern, SplitBehavior behavior, bool invert) : splitter_(pattern), behavior_(behavior), invert_(invert) {}
  void split(std::string_view text, std::vector<std::string_view>& pieces) const override {
    std::vector<Part> parts;
    size_t position = 0;
    for (const MatchSpan& match : splitter_.matches(text)) {
      if (match.begin > position) parts.push_back({position, match.begin, invert_});
      parts.push_back({match.begin, match.end, !invert_});
      position = match.end;
    }
    if (position < text.size()) parts.push_back({position, text.size(), invert_});
    for (const Part& part : behave(std::move(parts), behavior_)) {
      if (part.end > part.begin) pieces.push_back(text.substr(part.begin, part.end - part.begin));
    }
  }

 private:
  RegexSplitter splitter_;
  SplitBehavior behavior_;
  bool invert_;
};

size_t digit_run(std::string_view text, size_t position, bool numeric, bool one) {
  do {
    const ClassedChar next = classed_char(text, position);
    if (next.is(kNumeric) != numeric) break;
    position += next.length;
  } while (position < text.size() && !(numeric && one));
  return position;
}
template <bool one>
size_t scan_digits(std::string_view text, size_t position) {
  return digit_run(text, position, classed_char(text, position).is(kNumeric), one);
}

class WhitespaceStep : public SplitStep {
 public:
  void split(std::string_view text, std::vector<std::string_view>& pieces) const override {
    size_t begin = 0;
    const auto cut = [&](size_t end) {
      if (end > begin) pieces.push_back(text.substr(begin, end - begin));
    };
    for (size_t i = 0; i < text.size();) {
      const ClassedChar next = classed_char(text, i);
      if (next.is(kSpace)) {
        cut(i);
        begin = i + next.length;
      }
      i += next.length;
    }
    cut(text.size());
  }
};

std::shared_ptr<const SplitStep> make_split(const SplitRule& rule, bool use_scanners) {
  const KnownPattern* known = use_scanners ? find_known_pattern(rule.pattern) : nullptr;
  // A scanner gives matches and gaps as they come, which is Isolated; where there are no gaps, "remove all that does not match" is the same.
  const bool removes_gaps = rule.behavior == SplitBehavior::kRemoved && rule.invert;
  if (known != nullptr && (rule.behavior == SplitBehavior::kIsolated || (removes_gaps && known->total))) {
    return std::make_shared<ScannerStep>(known->scan);
  }
  if (use_scanners && rule.behavior == SplitBehavior::kIsolated) {
    if (const auto bytes = read_first_bytes_pattern(rule.pattern)) return std::make_shared<FirstBytesStep>(*bytes);
  }
  return std::make_shared<RegexStep>(rule.pattern, rule.behavior, rule.invert);
}

void put_spaces_before(Pieces& out) {
  for (std::string_view& piece : out.pieces) {
    if (!piece.starts_with(' ')) piece = out.made.emplace_back(" " + std::string(piece));
  }
}

// Spaces become kSpaceSign; pieces are cut before each.
void apply_metaspace(const SplitRule& rule, std::string_view text, bool at_start, Pieces& out) {
  std::vector<std::string_view> pieces;
  for (const std::string_view piece : out.pieces) {
    std::string& made = out.made.emplace_back();
    made.reserve(piece.size() + piece.size() / 3 + 3);
    const bool prefix = rule.add_prefix_space && (!rule.only_at_start || (at_start && piece.data() == text.data()));
    if (prefix && !piece.starts_with(' ') && !piece.starts_with(kSpaceSign)) made += kSpaceSign;
    for (const char c : piece) {
      if (c == ' ') {
        made += kSpaceSign;
      } else {
        made += c;
      }
    }
    const std::string_view whole = made;
    if (!rule.at_spaces) {
      pieces.push_back(whole);
      continue;
    }
    size_t begin = 0;
    for (size_t at = whole.find(kSpaceSign, 1); at != std::string_view::npos; at = whole.find(kSpaceSign, at + 1)) {
      pieces.push_back(whole.substr(begin, at - begin));
      begin = at;
    }
    pieces.push_back(whole.substr(begin));
  }
  out.pieces.swap(pieces);
}

}  // namespace

PreTokenizer::PreTokenizer(std::vector<SplitRule> rules, bool use_scanners) : rules_(std::move(rules)) {
  for (const SplitRule& rule : rules_) {
    switch (rule.kind) {
      case SplitRule::Kind::kSplit: steps_.push_back(make_split(rule, use_scanners)); break;
      case SplitRule::Kind::kDigits:
        steps_.push_back(std::make_shared<ScannerStep>(rule.individual_digits ? scan_digits<true> : scan_digits<false>));
        break;
      case SplitRule::Kind::kByteLevel:
        steps_.push_back(rule.use_regex ? make_split({.pattern = std::string(kGpt2Pattern)}, use_scanners) : nullptr);
        break;
      case SplitRule::Kind::kMetaspace: steps_.push_back(nullptr); break;
      case SplitRule::Kind::kWhitespaceSplit: steps_.push_back(std::make_shared<WhitespaceStep>()); break;
    }
  }
}

void PreTokenizer::split(std::string_view text, Pieces& out, bool at_start) const {
  out.pieces.clear();
  out.made.clear();
  if (text.empty()) return;
  out.pieces.push_back(text);
  std::vector<std::string_view> next;
  for (size_t i = 0; i < rules_.size(); ++i) {
    if (rules_[i].kind == SplitRule::Kind::kByteLevel && rules_[i].add_prefix_space) put_spaces_before(out);
    if (rules_[i].kind == SplitRule::Kind::kMetaspace) apply_metaspace(rules_[i], text, at_start, out);
    if (steps_[i] == nullptr) continue;
    next.clear();
    next.reserve(out.pieces.size() == 1 ? text.size() / 4 + 1 : out.pieces.size());
    for (const std::string_view piece : out.pieces) steps_[i]->split(piece, next);
    out.pieces.swap(next);
  }
}

}  // namespace graft
