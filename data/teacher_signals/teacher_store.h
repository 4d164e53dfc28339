// What one teacher says of rows, on disk: a folder teacher-<key> of immutable shards (data/stores/shard_folder.h), written by `graft teach`, read by training.
//
// The folder's name comes from everything that decides a signal but the rows: the teacher's files and adapter, tokenizer, chat template, form, temperature and the
// seed of draws. A row is found by the SHA-256 of its tokens and mask: other rows can be added later, and rows of a killed run are there up to the last whole shard.
// A teacher that writes answers has such a folder too (TeacherIdentity::answers): rows by their ids, with the answer in place of bits.
// Each shard holds row_hashes (uint8, 32 a row), num_tokens (int32, supervised ones), offsets (int64, into the bits, from 0) and bits (uint8).
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include <nlohmann/json.hpp>

#include "data/stores/shard_folder.h"
#include "data/teacher_signals/signal_codec.h"

namespace graft {

struct TeacherIdentity {
  std::string teacher;         // SHA-256 (hex) over its files and adapter; of a server over its URL and the model's name there
  std::string tokenizer;       // fingerprint
  std::string chat_template;   // fingerprint; "none"
  SignalForm form;
  double temperature = 1;
  uint64_t seed = 0;           // of draws
  struct Answers {             // of a store of answers, whose tokenizer and template are the teacher's own; temperature and seed are those of sampling
    double top_p = 1;
    int64_t max_new_tokens = 0;
    int64_t now = 0;           // date that the template may show, unix seconds
    nlohmann::ordered_json template_arguments;
  };
  std::optional<Answers> answers;   // in place of `form`
  nlohmann::ordered_json served;    // of a server: what it says of its model; kRead: {}, whatever it said. Null: no server
};

// Hex SHA-256 of a row's tokens and of which are supervised.
std::string taught_row_hash(std::span<const int32_t> ids, std::span<const uint8_t> supervised);

struct TaughtRow {
  std::string hash;
  int64_t num_tokens = 0;      // supervised
  std::vector<std::byte> bits; // of SignalEncoder
};

class TeacherStore {
 public:
  enum class Mode { kTeach, kRead };
  // kTeach: makes the folder where it is not there, and holds its lock. kRead: takes no lock, so that several processes read, also while one teaches; UserError
  // where `cache` has no such store, with what differs in those that it has. Signals lie in memory: a few dozen bytes a token.
  TeacherStore(const std::filesystem::path& cache, const TeacherIdentity& identity, Mode mode, StoreLog log = {});

  bool contains(const std::string& row_hash) const { return places_.contains(row_hash); }
  int64_t num_rows() const { return static_cast<int64_t>(places_.size()); }
  int64_t num_tokens() const { return num_tokens_; }
  int64_t num_bytes() const;   // of signals and their offsets
  const nlohmann::ordered_json& served() const { return identity_.served; }   // kRead too: as it was said
  // One shard. Rows that are there are left out. MachineError when the disk is full: what was added before stays.
  void add(std::span<const TaughtRow> rows);
  // Appends a row's tokens. UserError where it is missing, or has another number of tokens.
  void read(const std::string& row_hash, int64_t num_tokens, SignalRows& rows) const;
  // A row's bytes as they were added. The row must be there.
  std::string text(const std::string& row_hash) const;

 private:
  struct Shard {
    std::vector<int64_t> offsets;
    std::vector<uint8_t> bits;
  };
  struct Place {
    size_t shard = 0, row = 0;
    int64_t num_tokens = 0;
  };
  void load(const std::filesystem::path& path);

  TeacherIdentity identity_;
  std::string name_;           // of the folder
  std::unique_ptr<ShardFolder> folder_;   // kTeach
  std::vector<Shard> shards_;
  std::unordered_map<std::string, Place> places_;
  int64_t num_tokens_ = 0;
};

}  // namespace graft
