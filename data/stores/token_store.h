// Encoded rows on disk, so that a second run or a resumed one does not tokenise again.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>

#include "data/rows/encode.h"
#include "data/stores/shard_folder.h"

namespace graft {

// What decides the tokens of `rows`: SHA-256 (hex) over the row ids in order, the tokenizer's and the template's fingerprints,
// the template arguments, the date if the template reads it (strftime_now), and the version of the encoder. data.max_tokens and
// data.over_long are not in it: rows are stored whole, limit_lengths comes after.
std::string token_store_key(const TemplateContext& context, std::span<const Row> rows);

struct StoreOptions {
  std::filesystem::path cache;  // folder of the stores; empty: nothing is stored
  int64_t rows_per_shard = 4096;
  int threads = 0;                             // of encode_rows
  std::function<void(int64_t)> progress = {};  // rows that are encoded or read
  StoreLog log = {};
};

// encode_rows through the store tokens-<key> of the cache folder (0700, files 0600): shards that are there are read, the others
// are encoded and added one by one, so that a killed run goes on where it was. A damaged shard is made anew, and the log says
// so. Each shard holds ids (int32), supervised (uint8) and offsets (int64, from 0). Throws as encode_rows, and MachineError
// when the disk refuses.
TokenTable encode_through_store(const TemplateContext& context, std::span<const Row> rows, const StoreOptions& options);

}  // namespace graft
