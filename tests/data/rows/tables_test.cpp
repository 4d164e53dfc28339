// CSV against Python's csv module, Parquet against pyarrow.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/rows/arrow_tables.h"
#include "data/rows/csv_table.h"
#include "data/rows/dataset.h"
#include "kernels/common/error.h"
#include "tests/support/files.h"

namespace graft {
namespace {

using testing::HasSubstr;

constexpr const char* kScript = "tests/data/rows/reference_tables.py";

void expect_like_python(const std::filesystem::path& csv, const std::filesystem::path& scratch) {
  test::run_python(kScript, {"csv", csv, scratch});
  const auto expected = nlohmann::json::parse(test::read_file(scratch)).get<std::vector<std::vector<std::string>>>();
  RowProblems problems;
  const CsvTable table = parse_csv(test::read_file(csv), ',', "x.csv", problems);
  EXPECT_EQ(problems.count(), 0);
  ASSERT_EQ(table.records.size() + 1, expected.size());
  EXPECT_EQ(table.names, expected[0]);
  for (size_t row = 0; row < table.records.size(); ++row)
    ASSERT_EQ(table.records[row], expected[row + 1]) << "line " << table.lines[row];
}

TEST(Csv, EqualsPython) {
  test::TemporaryFolder folder;
  test::write_file(folder / "hard.csv",
                   "a,b,c\r\n\"x\"\"y\"\"\",\"\",\"1,2\"\n\"two\r\nlines\",\" spaced \", q\"uote\n,,\n\"end\",\"of\",\"file\"");
  expect_like_python(folder / "hard.csv", folder / "hard.json");
  expect_like_python(test::shared_dir() / "data/banking77/banking_data/train.csv", folder / "train.json");
}

TEST(Csv, LinesAreWhereRecordsBegin) {
  RowProblems problems;
  const CsvTable table = parse_csv("a\n\n\"1\n2\"\r\n\r3\r\"4\"", ',', "x.csv", problems);
  EXPECT_EQ(table.lines, (std::vector<int64_t>{3, 6, 7}));
  EXPECT_EQ(table.records, (std::vector<std::vector<std::string>>{{"1\n2"}, {"3"}, {"4"}}));
}

struct Parquet : testing::Test {
  test::TemporaryFolder folder;
  std::string path = folder / "rows.parquet";
};

TEST_F(Parquet, ColumnsAsText) {
  test::run_python(kScript, {"parquet", path});
  const Table table = read_parquet(path);
  ASSERT_EQ(table.num_rows, 3);
  std::map<std::string, std::vector<std::optional<std::string>>> columns;
  for (const TableColumn& column : table.columns) columns[column.name] = column.values;
  using Values = std::vector<std::optional<std::string>>;
  EXPECT_EQ(columns["text"], (Values{"Hällo \"you\"", "line\nbreak", "NA"}));
  EXPECT_EQ(columns["label"], (Values{"a", "b", "a"}));
  EXPECT_EQ(columns["large"], (Values{"x", std::nullopt, ""}));
  EXPECT_EQ(columns["number"], (Values{"7", "-1", "4611686018427387904"}));
  EXPECT_EQ(columns["real"], (Values{"0.5", "1.25", std::nullopt}));
  EXPECT_EQ(columns["truth"], (Values{"true", "false", std::nullopt}));
  EXPECT_FALSE(table.columns.back().is_text);

  const auto rows = read_rows({.path = path, .format = "labelled", .label = "number", .completion = "{label}"});
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(*rows[1].label, "-1");
  EXPECT_EQ(answer_of(rows[1]), "b");
  EXPECT_EQ(row_place(rows[2]), "rows.parquet:3");
}

TEST_F(Parquet, NullsListsAndBrokenFilesAreErrors) {
  test::run_python(kScript, {"parquet", path});
  const auto error_of = [&](SourceOptions source) -> std::string {
    source.path = path;
    try {
      read_rows(source);
    } catch (const UserError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_THAT(error_of({.format = "text", .text = "real"}), HasSubstr("rows.parquet:3: column \"real\" is null"));
  EXPECT_THAT(error_of({.format = "text", .text = "parts"}), HasSubstr("column \"parts\" is a list, expected text"));
  EXPECT_THAT(error_of({.format = "messages"}), HasSubstr("write JSONL"));
  std::string bytes = test::read_file(path);
  test::write_file(path, bytes.substr(0, bytes.size() / 2));
  EXPECT_THAT(error_of({.format = "text"}), HasSubstr("expected a Parquet file"));
  test::write_file(path, "");
  EXPECT_THAT(error_of({.format = "text"}), HasSubstr("expected a Parquet file"));
}

}  // namespace
}  // namespace graft
