#include "data/stores/token_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/stores/hdf5_file.h"
#include "data/stores/store_files.h"
#include "kernels/common/error.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/support/files.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

// Counts how many texts were tokenised.
class CountingTokenizer : public test::ByteTokenizer {
 public:
  std::vector<int32_t> encode(std::string_view text, bool add_special) const override {
    ++calls;
    return ByteTokenizer::encode(text, add_special);
  }
  mutable std::atomic<int> calls = 0;
};

struct TokenStore : testing::Test {
  test::TemporaryFolder temporary;
  fs::path cache = temporary / "cache";
  std::shared_ptr<CountingTokenizer> tokenizer = std::make_shared<CountingTokenizer>();
  TemplateContext context{tokenizer};
  std::vector<Row> rows;
  std::vector<std::string> log;
  StoreOptions options{
      .cache = cache, .rows_per_shard = 10, .threads = 2, .log = [this](const std::string& line) { log.push_back(line); }};

  TokenStore() {
    for (int row = 0; row < 35; ++row) {
      Row document;
      document.kind = RowKind::kText;
      document.text = std::string(static_cast<size_t>(row % 7 + 1), static_cast<char>('a' + row % 26));
      document.row_id = "row" + std::to_string(row);
      rows.push_back(document);
    }
  }
  int calls_of(const std::function<void()>& work) {
    tokenizer->calls = 0;
    work();
    return tokenizer->calls;
  }
  fs::path folder() const { return cache / ("tokens-" + token_store_key(context, rows).substr(0, 16)); }
};

mode_t mode_of(const fs::path& path) {
  struct stat status {};
  stat(path.c_str(), &status);
  return status.st_mode & 0777;
}

TEST_F(TokenStore, ASecondRunReadsWhatTheFirstWrote) {
  const auto expected = encode_rows(context, rows, 1);
  TokenTable first, second;
  EXPECT_EQ(calls_of([&] { first = encode_through_store(context, rows, options); }), 35);
  EXPECT_EQ(calls_of([&] { second = encode_through_store(context, rows, options); }), 0);
  EXPECT_EQ(first, expected);
  EXPECT_EQ(second, expected);
  EXPECT_TRUE(log.empty());
}

TEST_F(TokenStore, IsPrivate) {
  encode_through_store(context, rows, options);
  EXPECT_EQ(mode_of(cache), 0700u);
  EXPECT_EQ(mode_of(folder()), 0700u);
  int files = 0;
  for (const auto& file : fs::directory_iterator(folder())) {
    EXPECT_EQ(mode_of(file.path()), 0600u) << file.path();
    ++files;
  }
  EXPECT_EQ(files, 6);  // four shards, index.json, lock
}

TEST_F(TokenStore, EqualTokensGiveEqualBytes) {
  encode_through_store(context, rows, options);
  const std::string first = test::read_file(folder() / "part-00000.h5");
  remove_store(cache, folder().filename());
  encode_through_store(context, rows, options);
  EXPECT_EQ(test::read_file(folder() / "part-00000.h5"), first);
}

// What a kill leaves behind: shards that are not listed, temporary files, a shard whose end never reached the disk.
TEST_F(TokenStore, GoesOnAfterAKill) {
  const auto expected = encode_through_store(context, rows, options);
  const auto index = test::read_file(folder() / "index.json");
  auto cut = nlohmann::ordered_json::parse(index);
  cut["shards"].erase(3);
  test::write_file(folder() / "index.json", cut.dump());
  test::write_file(folder() / "part-00003.h5.partial", "half a sha");
  test::write_file(folder() / "part-00099.h5", "stray");
  test::write_file(folder() / "notes.txt", "the user's");
  TokenTable again;
  EXPECT_EQ(calls_of([&] { again = encode_through_store(context, rows, options); }), 5);  // the last shard's rows only
  EXPECT_EQ(again, expected);
  EXPECT_FALSE(fs::exists(folder() / "part-00003.h5.partial"));
  EXPECT_FALSE(fs::exists(folder() / "part-00099.h5"));
  EXPECT_TRUE(fs::exists(folder() / "notes.txt"));
  EXPECT_EQ(nlohmann::ordered_json::parse(test::read_file(folder() / "index.json")), nlohmann::ordered_json::parse(index));
}

TEST_F(TokenStore, ADamagedShardIsMadeAnewAndTheLogSaysSo) {
  const auto expected = encode_through_store(context, rows, options);
  std::string bytes = test::read_file(folder() / "part-00001.h5");
  bytes[bytes.size() / 2] ^= 1;
  test::write_file(folder() / "part-00001.h5", bytes);
  fs::remove(folder() / "part-00002.h5");
  TokenTable again;
  EXPECT_EQ(calls_of([&] { again = encode_through_store(context, rows, options); }), 20);
  EXPECT_EQ(again, expected);
  EXPECT_THAT(log, ElementsAre(HasSubstr("part-00001.h5 is damaged"), HasSubstr("part-00002.h5 is damaged")));
  fs::resize_file(folder() / "index.json", 20);
  EXPECT_EQ(encode_through_store(context, rows, options), expected);
  EXPECT_THAT(log.back(), HasSubstr("unreadable index.json"));
}

TEST_F(TokenStore, TheKeyNamesEverythingThatDecidesTheTokens) {
  const std::string key = token_store_key(context, rows);
  auto other = rows;
  std::swap(other[0], other[1]);
  EXPECT_NE(token_store_key(context, other), key);
  TemplateContext changed = context;
  changed.arguments["enable_thinking"] = false;
  EXPECT_NE(token_store_key(changed, rows), key);
  changed = context;
  changed.now = 5;  // no template reads it
  EXPECT_EQ(token_store_key(changed, rows), key);
  tokenizer->fingerprint = "other";
  EXPECT_NE(token_store_key(context, rows), key);
}

TEST_F(TokenStore, ADateThatTheTemplateReadsIsInTheKey) {
  context.chat_template = std::make_shared<ChatTemplate>("{{ strftime_now('%Y') }}", "dated");
  const std::string key = token_store_key(context, rows);
  context.now = 5;
  EXPECT_NE(token_store_key(context, rows), key);
}

TEST_F(TokenStore, WaitsForAnotherWriter) {
  encode_through_store(context, rows, options);
  const int lock = open((folder() / "lock").c_str(), O_RDWR);
  ASSERT_EQ(flock(lock, LOCK_EX), 0);
  EXPECT_THROW(remove_store(cache, folder().filename()), UserError);
  std::jthread release([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    close(lock);
  });
  EXPECT_EQ(encode_through_store(context, rows, options).num_rows(), 35);
  EXPECT_THAT(log, ElementsAre(HasSubstr("waiting for another process")));
}

TEST_F(TokenStore, ListAndRemove) {
  EXPECT_TRUE(list_stores(cache).empty());
  encode_through_store(context, rows, options);
  fs::create_directories(cache / "not-a-store");
  const auto stores = list_stores(cache);
  ASSERT_EQ(stores.size(), 1u);
  EXPECT_EQ(stores[0].kind, "tokens");
  EXPECT_EQ(stores[0].num_rows, 35);
  EXPECT_EQ(stores[0].num_shards, 4);
  EXPECT_TRUE(stores[0].complete);
  EXPECT_GT(stores[0].bytes, 1000);
  EXPECT_THROW(remove_store(cache, "tokens-none"), UserError);
  EXPECT_THROW(remove_store(cache, "not-a-store"), UserError);
  EXPECT_EQ(remove_store(cache, stores[0].name), stores[0].bytes);
  EXPECT_FALSE(fs::exists(folder()));
  EXPECT_TRUE(fs::exists(cache / "not-a-store"));
}

TEST_F(TokenStore, AFolderThatCannotBeMadeIsTheMachinesFailure) {
  test::write_file(temporary / "file", "");
  options.cache = temporary / "file";
  EXPECT_THROW(encode_through_store(context, rows, options), MachineError);
}

TEST(Hdf5File, EmptyArraysAndWrongTypes) {
  test::TemporaryFolder folder;
  Hdf5File file(folder / "a.h5", Hdf5File::Mode::kCreate);
  file.write<int32_t>("none", {});
  file.write<float>("some", std::vector<float>{1.5f, -2.0f});
  file.close();
  const Hdf5File again(folder / "a.h5", Hdf5File::Mode::kRead);
  EXPECT_TRUE(again.read<int32_t>("none").empty());
  EXPECT_EQ(again.read<float>("some"), (std::vector<float>{1.5f, -2.0f}));
  EXPECT_THROW(again.read<int32_t>("some"), MachineError);
  EXPECT_THROW(again.read<float>("other"), MachineError);
  test::write_file(folder / "b.h5", "no HDF5");
  EXPECT_THROW(Hdf5File(folder / "b.h5", Hdf5File::Mode::kRead), MachineError);
}

}  // namespace
}  // namespace graft
