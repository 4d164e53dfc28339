// Signals on disk: added to, read by several, resumed after a kill, refused where they are another teacher's.
#include "data/teacher_signals/teacher_store.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/stores/store_files.h"
#include "kernels/common/error.h"
#include "tests/support/error_of.h"
#include "tests/support/files.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using Mode = TeacherStore::Mode;

struct TeacherStoreTest : testing::Test {
  test::TemporaryFolder temporary;
  fs::path cache = temporary / "cache";
  TeacherIdentity identity{std::string(64, 'a'), std::string(64, 'b'), std::string(64, 'c'), {SignalForm::Kind::kDrawn, 4, 100}, 1, 7};

  TaughtRow row(int32_t number) const {
    const std::vector<int32_t> ids = {number, number + 1, number + 2};
    const std::vector<uint8_t> supervised = {0, 1, 1};
    SignalEncoder encoder(identity.form);
    encoder.add_drawn(std::vector<int32_t>{number, number, 5, 6});
    encoder.add_drawn(std::vector<int32_t>{number, 99, 99, 99});
    return {taught_row_hash(ids, supervised), 2, encoder.take()};
  }
  std::vector<TaughtRow> rows(int32_t first, int32_t end) const {
    std::vector<TaughtRow> all;
    for (int32_t number = first; number < end; ++number) all.push_back(row(number));
    return all;
  }
};

TEST_F(TeacherStoreTest, KeepsRowsAndTakesMore) {
  {
    TeacherStore store(cache, identity, Mode::kTeach);
    store.add(rows(10, 13));
    store.add(rows(12, 15));   // one is there
  }
  {
    TeacherStore store(cache, identity, Mode::kTeach);
    EXPECT_EQ(store.num_rows(), 5);
    store.add(rows(10, 16));
  }
  const TeacherStore first(cache, identity, Mode::kRead), second(cache, identity, Mode::kRead);
  EXPECT_EQ(first.num_rows(), 6);
  EXPECT_EQ(second.num_tokens(), 12);
  SignalRows found;
  first.read(row(11).hash, 2, found);
  EXPECT_THAT(std::vector<int32_t>(found.ids_MK.begin(), found.ids_MK.begin() + 4), testing::ElementsAre(5, 6, 11, -1));
  EXPECT_NEAR(std::exp(found.log_probabilities_MK[2]), 0.5, 1e-6);
  EXPECT_THAT(list_stores(cache), testing::ElementsAre(testing::Field(&StoreEntry::kind, "teacher")));
}

TEST_F(TeacherStoreTest, GoesOnAfterAKill) {
  {
    TeacherStore store(cache, identity, Mode::kTeach);
    store.add(rows(10, 12));
  }
  const auto folder = fs::directory_iterator(cache)->path();
  std::ofstream(folder / "part-00001.h5.partial") << "half";
  TeacherStore store(cache, identity, Mode::kTeach);
  EXPECT_EQ(store.num_rows(), 2);
  EXPECT_FALSE(fs::exists(folder / "part-00001.h5.partial"));
}

TEST_F(TeacherStoreTest, ADamagedShardIsTaughtAgain) {
  {
    TeacherStore store(cache, identity, Mode::kTeach);
    store.add(rows(10, 12));
    store.add(rows(12, 14));
  }
  const auto folder = fs::directory_iterator(cache)->path();
  std::ofstream(folder / "part-00000.h5", std::ios::app) << "x";
  EXPECT_THAT(test::error_of([&] { TeacherStore(cache, identity, Mode::kRead); }), HasSubstr("part-00000.h5"));
  std::vector<std::string> log;
  TeacherStore store(cache, identity, Mode::kTeach, [&](const std::string& line) { log.push_back(line); });
  EXPECT_THAT(log, testing::ElementsAre(HasSubstr("damaged")));
  EXPECT_FALSE(store.contains(row(10).hash));
  EXPECT_TRUE(store.contains(row(13).hash));
  store.add(rows(10, 14));
  EXPECT_EQ(TeacherStore(cache, identity, Mode::kRead).num_rows(), 4);
}

TEST_F(TeacherStoreTest, AnotherTeachersIsRefused) {
  { TeacherStore(cache, identity, Mode::kTeach).add(rows(10, 12)); }
  auto other = identity;
  other.teacher = std::string(64, 'd');
  other.chat_template = std::string(64, 'e');
  const auto error = test::error_of([&] { TeacherStore(cache, other, Mode::kRead); });
  EXPECT_THAT(error, HasSubstr("teacher \"" + identity.teacher + "\" there, \"" + other.teacher + "\" here"));
  EXPECT_THAT(error, HasSubstr("template \"" + identity.chat_template));
  EXPECT_THAT(error, testing::Not(HasSubstr("tokenizer \"")));
  const TeacherStore store(cache, identity, Mode::kRead);
  SignalRows found;
  EXPECT_THAT(test::error_of([&] { store.read(row(20).hash, 2, found); }), HasSubstr("graft teach"));
  EXPECT_THAT(test::error_of([&] { store.read(row(10).hash, 3, found); }), HasSubstr("3 supervised tokens"));
}

}  // namespace
}  // namespace graft
