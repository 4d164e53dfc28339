#include "data/rows/encode.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "data/rows/row_problems.h"

namespace graft {
namespace {

constexpr size_t kRowsAtOnce = 16;  // one claim of a thread

// Encodes rows into `encoded`; a row that cannot be encoded leaves its reason in `reasons`.
class ParallelEncoder {
 public:
  ParallelEncoder(const TemplateContext& context, std::span<const Row> rows)
      : encoded(rows.size()), reasons(rows.size()), context_(context), rows_(rows) {}

  void run(int threads, const std::function<void(int64_t)>& progress) {
    std::vector<std::jthread> workers;
    running_ = threads;
    for (int thread = 0; thread < threads; ++thread) workers.emplace_back([this] { work(); });
    std::unique_lock lock(mutex_);
    while (!finished_.wait_for(lock, std::chrono::milliseconds(100), [&] { return running_ == 0; })) {
      lock.unlock();
      if (progress) progress(done_.load());
      lock.lock();
    }
    lock.unlock();
    workers.clear();
    if (failure_) std::rethrow_exception(failure_);
    if (progress) progress(static_cast<int64_t>(rows_.size()));
  }

  std::vector<EncodedText> encoded;
  std::vector<std::optional<std::string>> reasons;

 private:
  void work() {
    try {
      for (size_t begin = next_.fetch_add(kRowsAtOnce); begin < rows_.size(); begin = next_.fetch_add(kRowsAtOnce)) {
        const size_t end = std::min(begin + kRowsAtOnce, rows_.size());
        for (size_t row = begin; row < end; ++row) encode(row);
        done_ += static_cast<int64_t>(end - begin);
      }
    } catch (...) {  // memory; a bug: not this row's fault
      const std::lock_guard guard(mutex_);
      failure_ = std::current_exception();
      next_ = rows_.size();
    }
    const std::lock_guard guard(mutex_);
    --running_;
    finished_.notify_one();
  }
  void encode(size_t row) {
    try {
      encoded[row] = encode_row(context_, rows_[row]);
      encoded[row].text.clear();
    } catch (const UserError& error) {
      std::string reason = error.what();
      if (const size_t end = reason.find("] "); reason.starts_with("[graft.") && end != std::string::npos)
        reason.erase(0, end + 2);
      reasons[row] = std::move(reason);
    }
  }

  const TemplateContext& context_;
  std::span<const Row> rows_;
  std::atomic<size_t> next_ = 0;
  std::atomic<int64_t> done_ = 0;
  std::mutex mutex_;
  std::condition_variable finished_;
  int running_ = 0;
  std::exception_ptr failure_;
};

EncodedText encode_document(const Tokenizer& tokenizer, const std::string& text) {
  EncodedText encoded{text, tokenizer.encode(text, true), {}};
  if (tokenizer.eos_id && (encoded.ids.empty() || encoded.ids.back() != *tokenizer.eos_id))
    encoded.ids.push_back(*tokenizer.eos_id);
  encoded.supervised.assign(encoded.ids.size(), 1);
  return encoded;
}

}  // namespace

EncodedText encode_row(const TemplateContext& context, const Row& row) {
  if (row.kind == RowKind::kText) return encode_document(*context.tokenizer, row.text);
  return row.kind == RowKind::kPrompt ? encode_prompt(context, row.json) : encode_conversation(context, row.json);
}

TokenTable encode_rows(const TemplateContext& context, std::span<const Row> rows, int threads,
                       const std::function<void(int64_t)>& progress) {
  if (threads <= 0) threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  ParallelEncoder encoder(context, rows);
  encoder.run(threads, progress);
  RowProblems problems;
  TokenTable table;
  for (size_t row = 0; row < rows.size(); ++row) {
    if (encoder.reasons[row]) problems.add(row_place(rows[row]), *encoder.reasons[row]);
    table.add(encoder.encoded[row].ids, encoder.encoded[row].supervised);
  }
  problems.throw_if_any("rows that the chat template and the tokenizer take",
                        "mend these rows, or set data.template to another template");
  return table;
}

std::vector<std::pair<int64_t, int64_t>> document_windows(int64_t length, int64_t max_tokens) {
  if (max_tokens < 2) fail("data", "expected max_tokens of at least 2 for documents, got {} — see data.max_tokens", max_tokens);
  std::vector<std::pair<int64_t, int64_t>> windows;
  for (int64_t begin = 0; begin == 0 || begin + 1 < length; begin += max_tokens - 1) {
    windows.emplace_back(begin, std::min(begin + max_tokens, length));
  }
  return windows;
}

std::vector<std::vector<int32_t>> split_document(const std::vector<int32_t>& ids, int64_t max_tokens) {
  std::vector<std::vector<int32_t>> parts;
  for (const auto& [begin, end] : document_windows(static_cast<int64_t>(ids.size()), max_tokens))
    parts.emplace_back(ids.begin() + begin, ids.begin() + end);
  return parts;
}

OverLong over_long_of(const std::string& name) {
  if (name == "error") return OverLong::kError;
  if (name == "truncate") return OverLong::kTruncate;
  if (name == "drop") return OverLong::kDrop;
  fail("data", "expected over_long error, truncate or drop, got \"{}\" — see data.over_long", name);
}

Sequences limit_lengths(std::span<const Row> rows, const TokenTable& encoded, int64_t max_tokens, OverLong over_long) {
  if (max_tokens < 2) fail("data", "expected max_tokens of at least 2, got {} — see data.max_tokens", max_tokens);
  Sequences sequences;
  const auto add = [&](int64_t row, int64_t begin, int64_t end) {
    const TokenSpan whole = encoded.row(row);
    const auto first = static_cast<size_t>(begin), size = static_cast<size_t>(end - begin);
    sequences.tokens.add(whole.ids.subspan(first, size), whole.supervised.subspan(first, size));
    sequences.row_of.push_back(row);
  };
  for (int64_t row = 0; row < encoded.num_rows(); ++row) {
    const RowKind kind = rows[static_cast<size_t>(row)].kind;
    const int64_t length = encoded.length(row);
    if (kind == RowKind::kText) {
      const auto windows = document_windows(length, max_tokens);
      if (windows.size() > 1) sequences.cut_documents.push_back(row);
      for (const auto& [begin, end] : windows) add(row, begin, end);
    } else if (length > max_tokens) {
      sequences.over_long.push_back({row, length});
      if (over_long == OverLong::kDrop) continue;
      add(row, 0, over_long == OverLong::kTruncate ? max_tokens : length);
    } else {
      add(row, 0, length);
    }
    const int64_t last = sequences.tokens.num_rows() - 1;
    if (kind != RowKind::kPrompt && count_targets(sequences.tokens.row(last).supervised) == 0)
      sequences.without_targets.push_back(row);
  }
  return sequences;
}

}  // namespace graft
