#include "data/teacher_signals/teacher_store.h"

#include <algorithm>
#include <fstream>

#include <fmt/ranges.h>

#include "checkpoints/hash.h"
#include "data/stores/hdf5_file.h"
#include "data/stores/store_files.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int kCodecVersion = 1;   // to be raised whenever the same signal has other bits
constexpr size_t kHashBytes = 32;

Json description_of(const TeacherIdentity& identity) {
  if (identity.answers) {
    const auto& answers = *identity.answers;
    return {{"kind", "teacher"}, {"codec", kCodecVersion}, {"teacher", identity.teacher}, {"tokenizer", identity.tokenizer}, {"template", identity.chat_template}, {"form", "answers"},
            {"temperature", identity.temperature}, {"top_p", answers.top_p}, {"max_new_tokens", answers.max_new_tokens}, {"now", answers.now},
            {"template_arguments", answers.template_arguments}, {"seed", identity.seed}};
  }
  const bool drawn = identity.form.kind == SignalForm::Kind::kDrawn;
  Json json = {{"kind", "teacher"}, {"codec", kCodecVersion}, {"teacher", identity.teacher}, {"tokenizer", identity.tokenizer}, {"template", identity.chat_template},
               {"form", drawn ? "drawn" : "top"}, {"entries", identity.form.num_entries}, {"vocabulary", identity.form.vocab_size}, {"temperature", identity.temperature}};
  if (drawn) json["seed"] = identity.seed;
  if (!identity.served.is_null()) json["served"] = identity.served;
  return json;
}

Json read_index(const fs::path& folder) {
  std::ifstream stream(folder / kStoreIndex, std::ios::binary);
  return stream ? Json::parse(stream, nullptr, /*allow_exceptions=*/false) : Json();
}

// "teacher 1a2b... there, 3c4d... here", of the keys that differ.
std::string differences(const Json& there, const Json& here) {
  std::vector<std::string> parts;
  for (const auto& [key, value] : here.items()) {
    const auto found = there.find(key);
    if (found == there.end() || *found != value)
      parts.push_back(fmt::format("{} {} there, {} here", key, found == there.end() ? "missing" : found->dump(), value.dump()));
  }
  return fmt::format("{}", fmt::join(parts, "; "));
}

[[noreturn]] void no_such_store(const fs::path& cache, const Json& wanted) {
  std::string others;
  for (const auto& store : list_stores(cache)) {
    if (store.kind != "teacher") continue;
    const auto index = read_index(cache / store.name);
    if (const auto found = index.find("description"); found != index.end()) others += fmt::format("; {} is of another: {}", store.name, differences(*found, wanted));
  }
  fail("teach", "expected this teacher's signals for this tokenizer and template in {}, got none{} — run `graft teach` with this recipe", cache.string(), others);
}

// kRead does not ask a server: the one store of its address takes the place of what it would say.
void take_served(const fs::path& cache, TeacherIdentity& identity) {
  std::vector<std::string> names;
  Json served;
  auto wanted = description_of(identity);
  wanted.erase("served");
  for (const auto& store : list_stores(cache)) {
    auto description = store.kind == "teacher" ? read_index(cache / store.name).value("description", Json()) : Json();
    if (!description.contains("served")) continue;
    const Json said = description["served"];
    description.erase("served");
    if (description != wanted) continue;
    served = said;
    names.push_back(store.name);
  }
  if (names.size() > 1) {
    fail("teach", "expected the signals of one model of this server in {}, got {}: the server had another model in between — remove those that are not wanted with `graft cache remove`",
         cache.string(), fmt::join(names, ", "));
  }
  if (!names.empty()) identity.served = served;
}

uint8_t nibble(char digit) { return static_cast<uint8_t>(digit <= '9' ? digit - '0' : digit - 'a' + 10); }

}  // namespace

std::string taught_row_hash(std::span<const int32_t> ids, std::span<const uint8_t> supervised) {
  Sha256 hash;
  hash.update(fmt::format("graft row {}\n", ids.size()));
  hash.update(std::as_bytes(ids));
  hash.update(std::as_bytes(supervised));
  return hash.finish();
}

TeacherStore::TeacherStore(const fs::path& cache, const TeacherIdentity& identity, Mode mode, StoreLog log) : identity_(identity) {
  if (mode == Mode::kRead && identity.served.is_object()) take_served(cache, identity_);
  const auto description = description_of(identity_);
  name_ = "teacher-" + sha256(description.dump()).substr(0, 16);
  const auto path = cache / name_;
  if (mode == Mode::kTeach) {
    folder_ = std::make_unique<ShardFolder>(path, description, std::move(log));
    for (const int64_t number : folder_->numbers()) {
      if (const auto file = folder_->find(number); !file.empty()) load(file);   // a damaged one's rows are taught again
    }
    return;
  }
  const auto index = read_index(path);
  const auto found = index.find("description");
  if (found == index.end() || *found != description) no_such_store(cache, description);
  for (const auto& shard : index.at("shards")) {
    const auto file = path / shard_name(shard.at("number").get<int64_t>());
    if (!fs::exists(file) || sha256_file(file) != shard.at("sha256").get<std::string>())
      fail("teach", "expected the shard that the index lists, got a missing or damaged file ({}) — run `graft teach` again, which makes it anew", file.string());
    load(file);
  }
}

void TeacherStore::load(const fs::path& path) {
  const Hdf5File file(path, Hdf5File::Mode::kRead);
  const auto hashes = file.read<uint8_t>("row_hashes");
  const auto num_tokens = file.read<int32_t>("num_tokens");
  Shard shard{file.read<int64_t>("offsets"), file.read<uint8_t>("bits")};
  const size_t rows = num_tokens.size();
  const bool fits = hashes.size() == rows * kHashBytes && shard.offsets.size() == rows + 1 && shard.offsets.front() == 0 &&
                    std::is_sorted(shard.offsets.begin(), shard.offsets.end()) && shard.offsets.back() == static_cast<int64_t>(shard.bits.size());
  if (!fits) throw MachineError("store", fmt::format("expected a shard of teacher's signals, got arrays that do not fit together ({}) — remove the store", path.string()));
  for (size_t row = 0; row < rows; ++row) {
    places_[hexadecimal(std::span(hashes).subspan(row * kHashBytes, kHashBytes))] = {shards_.size(), row, num_tokens[row]};
    num_tokens_ += num_tokens[row];
  }
  shards_.push_back(std::move(shard));
}

int64_t TeacherStore::num_bytes() const {
  int64_t bytes = 0;
  for (const auto& shard : shards_) bytes += static_cast<int64_t>(shard.bits.size() + shard.offsets.size() * sizeof(int64_t));
  return bytes;
}

void TeacherStore::add(std::span<const TaughtRow> rows) {
  std::vector<uint8_t> hashes;
  std::vector<int32_t> num_tokens;
  Shard shard{{0}, {}};
  std::vector<std::string> added;
  for (const auto& row : rows) {
    if (contains(row.hash) || std::find(added.begin(), added.end(), row.hash) != added.end()) continue;
    added.push_back(row.hash);
    for (size_t i = 0; i < kHashBytes; ++i) hashes.push_back(static_cast<uint8_t>(nibble(row.hash.at(2 * i)) << 4 | nibble(row.hash.at(2 * i + 1))));
    num_tokens.push_back(static_cast<int32_t>(row.num_tokens));
    for (const auto byte : row.bits) shard.bits.push_back(static_cast<uint8_t>(byte));
    shard.offsets.push_back(static_cast<int64_t>(shard.bits.size()));
  }
  if (added.empty()) return;
  int64_t number = 0;   // the first that is free
  for (const int64_t taken : folder_->numbers()) number += taken == number;
  folder_->add(number, [&](const fs::path& path) {
    Hdf5File file(path, Hdf5File::Mode::kCreate);
    file.write<uint8_t>("row_hashes", hashes);
    file.write<int32_t>("num_tokens", num_tokens);
    file.write<int64_t>("offsets", shard.offsets);
    file.write<uint8_t>("bits", shard.bits);
    file.close();
  });
  for (size_t row = 0; row < added.size(); ++row) places_[added[row]] = {shards_.size(), row, num_tokens[row]}, num_tokens_ += num_tokens[row];
  shards_.push_back(std::move(shard));
}

std::string TeacherStore::text(const std::string& row_hash) const {
  const auto& place = places_.at(row_hash);
  const auto& shard = shards_[place.shard];
  return {shard.bits.begin() + shard.offsets[place.row], shard.bits.begin() + shard.offsets[place.row + 1]};
}

void TeacherStore::read(const std::string& row_hash, int64_t num_tokens, SignalRows& rows) const {
  const auto found = places_.find(row_hash);
  if (found == places_.end()) fail("teach", "expected the teacher's signals of every row, got none of one of {} supervised tokens ({}) — run `graft teach`, which adds what is missing", num_tokens, name_);
  const auto& place = found->second;
  if (place.num_tokens != num_tokens) fail("teach", "expected signals of {} supervised tokens of a row, got {} ({}) — the cache is damaged: remove it and teach again", num_tokens, place.num_tokens, name_);
  const auto& shard = shards_[place.shard];
  const auto first = static_cast<size_t>(shard.offsets[place.row]), end = static_cast<size_t>(shard.offsets[place.row + 1]);
  decode_signals(identity_.form, std::as_bytes(std::span(shard.bits).subspan(first, end - first)), num_tokens, name_, rows);
}

}  // namespace graft
