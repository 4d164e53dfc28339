#include "trainer/models/families/licences.h"

#include <fstream>
#include <sstream>

#include <gmock/gmock.h>

namespace graft {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(Licences, TheTableInTheFolderIsThatOfTheCode) {
  std::ifstream in(std::string(GRAFT_TEST_SOURCE_DIR) + "/trainer/models/families/licences.md");
  std::stringstream text;
  text << in.rdbuf();
  EXPECT_EQ(text.str(), licence_markdown());
}

TEST(Licences, EveryEntrySaysWhereItComesFrom) {
  for (const auto& terms : licence_table()) {
    EXPECT_FALSE(terms.source.empty()) << terms.identifier;
    EXPECT_TRUE(terms.student == "no" || terms.student == "yes" || terms.student == "unverified") << terms.identifier;
    EXPECT_EQ(find_licence(terms.identifier), &terms);
  }
}

TEST(Licences, TitlesAndCards) {
  EXPECT_EQ(find_licence("Apache License")->identifier, "apache-2.0");
  EXPECT_EQ(find_licence("  MIT License")->identifier, "mit");
  EXPECT_EQ(find_licence("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT")->identifier, "llama3.1");
  EXPECT_EQ(find_licence("TENCENT HUNYUAN COMMUNITY LICENSE AGREEMENT")->identifier, "tencent-hunyuan-community");
  EXPECT_EQ(find_licence("Some Licence of Ours"), nullptr);
}

TEST(Licences, WhatNeedsSomebodysWord) {
  EXPECT_THAT(check_licence({"apache-2.0"}, {}).problem, IsEmpty());
  EXPECT_THAT(check_licence({}, {}).problem, HasSubstr("accept_licence: unknown"));
  EXPECT_THAT(check_licence({"unknown", ""}, {"unknown"}).problem, IsEmpty());
  EXPECT_THAT(check_licence({"Our Licence"}, {}).problem, HasSubstr("Our Licence"));
  EXPECT_THAT(check_licence({"cc-by-nc-4.0"}, {}).problem, HasSubstr("commercial"));
  EXPECT_THAT(check_licence({"cc-by-nc-4.0"}, {"apache-2.0"}).problem, HasSubstr("accept_licence: cc-by-nc-4.0"));
  EXPECT_THAT(check_licence({"cc-by-nc-4.0"}, {"cc-by-nc-4.0"}).problem, IsEmpty());
  EXPECT_THAT(check_licence({"openPangu Model License"}, {}).problem, HasSubstr("European Union"));
}

TEST(Licences, TheFileWinsAndAContradictionIsSaid) {
  const auto finding = check_licence({"TENCENT HUNYUAN COMMUNITY LICENSE", "apache-2.0"}, {});
  EXPECT_EQ(finding.identifier, "tencent-hunyuan-community");
  ASSERT_FALSE(finding.notes.empty());
  EXPECT_THAT(finding.notes[0], HasSubstr("contradicts"));
}

}  // namespace
}  // namespace graft
