// Two tokenisations of one text, and two vocabularies.
#include "data/teacher_signals/token_alignment.h"

#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/teacher_signals/vocabulary_match.h"
#include "kernels/common/error.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/support/error_of.h"

namespace graft {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Ends = std::vector<int64_t>;

TEST(TokenAlignment, FindsTheSmallestSpans) {
  EXPECT_THAT(align_tokens(Ends{1, 2, 5}, Ends{1, 2, 5}), ElementsAre(AlignedSpan{0, 1, 0, 1}, AlignedSpan{1, 1, 1, 1}, AlignedSpan{2, 1, 2, 1}));
  EXPECT_THAT(align_tokens(Ends{5, 7}, Ends{1, 2, 5, 7}), ElementsAre(AlignedSpan{0, 1, 0, 3}, AlignedSpan{1, 1, 3, 1}));
  EXPECT_THAT(align_tokens(Ends{2, 4, 6}, Ends{3, 5, 6}), ElementsAre(AlignedSpan{0, 3, 0, 3}));
}

TEST(TokenAlignment, TokensOfNoBytesBelongToTheSpanBefore) {
  EXPECT_THAT(align_tokens(Ends{0, 2, 2, 4}, Ends{2, 4, 4}), ElementsAre(AlignedSpan{0, 3, 0, 1}, AlignedSpan{3, 1, 1, 2}));
  EXPECT_THAT(align_tokens(Ends{3}, Ends{0, 0, 3}), ElementsAre(AlignedSpan{0, 1, 0, 3}));
  EXPECT_THAT(align_tokens(Ends{0}, Ends{}), ElementsAre(AlignedSpan{0, 1, 0, 0}));
  EXPECT_THAT(align_tokens(Ends{}, Ends{}), testing::IsEmpty());
}

TEST(TokenAlignment, RandomCutsAreCoveredOnceAndMeetOnlyAtTheirEnds) {
  std::mt19937_64 chance(1);
  const auto cuts = [&](int64_t length) {
    Ends ends;
    for (int64_t at = 0; at < length;) ends.push_back(at = std::min<int64_t>(length, at + static_cast<int64_t>(chance() % 4)));
    return ends;
  };
  for (int round = 0; round < 300; ++round) {
    const int64_t length = 1 + static_cast<int64_t>(chance() % 40);
    const auto student = cuts(length), teacher = cuts(length);
    int64_t students = 0, teachers = 0, begin = 0;
    for (const auto& span : align_tokens(student, teacher)) {
      ASSERT_EQ(span.student_first, students);
      ASSERT_EQ(span.teacher_first, teachers);
      students += span.student_count;
      teachers += span.teacher_count;
      const int64_t end = student.at(static_cast<size_t>(students - 1));
      ASSERT_EQ(end, teacher.at(static_cast<size_t>(teachers - 1)));
      for (int64_t i = span.student_first; i < students; ++i) {   // no smaller span
        const int64_t inside = student[static_cast<size_t>(i)];
        const bool within = inside > begin && inside < end;
        ASSERT_TRUE(!within || std::count(teacher.begin(), teacher.end(), inside) == 0);
      }
      begin = end;
    }
    ASSERT_EQ(students, static_cast<int64_t>(student.size()));
    ASSERT_EQ(teachers, static_cast<int64_t>(teacher.size()));
  }
}

TEST(TokenAlignment, OtherTextsAreRefused) {
  EXPECT_THAT(test::error_of([] { align_tokens(Ends{1, 4}, Ends{5}); }), HasSubstr("got 4 and 5 bytes"));
  EXPECT_THAT(test::error_of([] { align_tokens(Ends{4, 1, 5}, Ends{5}); }), HasSubstr("go back"));
}

// Plain tokens, and special ones in angle brackets.
class ListTokenizer : public test::ByteTokenizer {
 public:
  explicit ListTokenizer(std::vector<std::string> tokens) : tokens_(std::move(tokens)) {}
  std::string token_bytes(int32_t id) const override { return tokens_.at(static_cast<size_t>(id)); }
  bool is_special(int32_t id) const override { return tokens_.at(static_cast<size_t>(id)).starts_with("<"); }
  int64_t vocab_size() const override { return static_cast<int64_t>(tokens_.size()); }

 private:
  std::vector<std::string> tokens_;
};

TEST(VocabularyMatch, SameAndWithMoreAtTheEnd) {
  const ListTokenizer small({"a", "b", "<end>"}), large({"a", "b", "<end>", "<pad0>", "<pad1>"});
  const auto same = match_vocabularies(small, small);
  EXPECT_EQ(same.kind, VocabularyMatch::Kind::kSame);
  EXPECT_EQ(same.difference, "");
  const auto more = match_vocabularies(small, large);
  EXPECT_EQ(more.kind, VocabularyMatch::Kind::kSameStart);
  EXPECT_THAT(more.student_of_teacher, ElementsAre(0, 1, 2, -1, -1));
  EXPECT_EQ(more.num_shared, 3);
  EXPECT_EQ(match_vocabularies(large, small).kind, VocabularyMatch::Kind::kSameStart);
}

TEST(VocabularyMatch, OthersByTheirText) {
  const ListTokenizer student({"b", "a", "c", "<end>", "d", "d"}), teacher({"a", "b", "c", "end", "<end>", "d"});
  const auto match = match_vocabularies(student, teacher);
  EXPECT_EQ(match.kind, VocabularyMatch::Kind::kDifferent);
  EXPECT_THAT(match.student_of_teacher, ElementsAre(1, 0, 2, -1, 3, 5));   // "d" stays where it is the same on both sides
  EXPECT_EQ(match.num_shared, 5);
  EXPECT_THAT(match.difference, HasSubstr("id 0 is \"b\" to the student and \"a\" to the teacher"));
}

}  // namespace
}  // namespace graft
