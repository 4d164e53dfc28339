#include "data/stores/token_store.h"

#include <algorithm>

#include "checkpoints/hash.h"
#include "data/stores/hdf5_file.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

namespace fs = std::filesystem;

// To be raised whenever the same rows, tokenizer and template give other tokens or another mask.
constexpr int kEncoderVersion = 1;

void write_shard(const fs::path& path, const TokenTable& table) {
  Hdf5File file(path, Hdf5File::Mode::kCreate);
  file.write<int32_t>("ids", table.ids);
  file.write<uint8_t>("supervised", table.supervised);
  file.write<int64_t>("offsets", table.offsets);
  file.close();
}

TokenTable read_shard(const fs::path& path, int64_t num_rows) {
  const Hdf5File file(path, Hdf5File::Mode::kRead);
  TokenTable table{file.read<int32_t>("ids"), file.read<uint8_t>("supervised"), file.read<int64_t>("offsets")};
  const bool fits = table.num_rows() == num_rows && table.offsets.front() == 0 &&
                    std::is_sorted(table.offsets.begin(), table.offsets.end()) &&
                    table.offsets.back() == static_cast<int64_t>(table.ids.size()) &&
                    table.ids.size() == table.supervised.size();
  if (!fits)
    throw MachineError("store",
                       fmt::format("expected a shard of {} rows, got arrays that do not fit together ({}) — remove the store",
                                   num_rows, path.string()));
  return table;
}

}  // namespace

std::string token_store_key(const TemplateContext& context, std::span<const Row> rows) {
  const bool reads_date = context.chat_template && context.chat_template->source().find("strftime_now") != std::string::npos;
  const Tokenizer& tokenizer = *context.tokenizer;
  Sha256 hash;
  hash.update(fmt::format("graft tokens {}\n{}\n{}\n{}\n{}\n{}\n{}\n", kEncoderVersion, tokenizer.fingerprint,
                          tokenizer.special_tokens.dump(), tokenizer.eos_id.value_or(-1),
                          context.chat_template ? context.chat_template->fingerprint() : "none", context.arguments.dump(),
                          reads_date ? std::to_string(context.now) : "no date"));
  for (const Row& row : rows) hash.update(row.row_id + (row.kind == RowKind::kPrompt ? " prompt\n" : "\n"));
  return hash.finish();
}

TokenTable encode_through_store(const TemplateContext& context, std::span<const Row> rows, const StoreOptions& options) {
  const auto report = [&](int64_t done) {
    if (options.progress) options.progress(done);
  };
  if (options.cache.empty() || rows.empty()) return encode_rows(context, rows, options.threads, report);
  const std::string key = token_store_key(context, rows);
  const auto num_rows = static_cast<int64_t>(rows.size());
  const int64_t num_shards = (num_rows + options.rows_per_shard - 1) / options.rows_per_shard;
  ShardFolder folder(options.cache / ("tokens-" + key.substr(0, 16)),
                     {{"kind", "tokens"},
                      {"key", key},
                      {"rows", num_rows},
                      {"shards", num_shards},
                      {"rows_per_shard", options.rows_per_shard}},
                     options.log);
  TokenTable all;
  for (int64_t shard = 0; shard < num_shards; ++shard) {
    const int64_t begin = shard * options.rows_per_shard, size = std::min(options.rows_per_shard, num_rows - begin);
    TokenTable table;
    if (const fs::path path = folder.find(shard); !path.empty()) {
      table = read_shard(path, size);
    } else {
      table = encode_rows(context, rows.subspan(static_cast<size_t>(begin), static_cast<size_t>(size)), options.threads,
                          [&](int64_t done) { report(begin + done); });
      folder.add(shard, [&](const fs::path& path) { write_shard(path, table); });
    }
    all.add_all(table);
    report(begin + size);
  }
  return all;
}

}  // namespace graft
