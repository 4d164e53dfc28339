#include "data/rows/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "tests/support/error_of.h"
#include "tests/support/files.h"

namespace graft {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

struct ReadRows : testing::Test {
  test::TemporaryFolder folder;

  std::string write(const std::string& name, const std::string& text) {
    const auto path = folder / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
    return path.string();
  }
  std::vector<Row> read(const std::string& name, const std::string& text, const std::string& format,
                        SourceOptions options = {}) {
    options.path = write(name, text);
    options.format = format;
    return read_rows(options);
  }
  std::string error_of(const std::string& name, const std::string& text, const std::string& format,
                       SourceOptions options = {}) {
    return test::error_of([&] { read(name, text, format, options); });
  }
};

const char* const kConversation = R"({"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}]})";

TEST_F(ReadRows, JsonIsKeptAsItIs) {
  const std::string call =
      R"({"messages":[{"role":"user","content":"Weather?"},{"role":"assistant","content":null,"tool_calls":)"
      R"([{"function":{"name":"weather","arguments":{"z":1,"a":null,"days":3.50}}}]}],"tools":[{"type":"function"}],"id":7})";
  const auto rows = read("a.jsonl", call + "\n" + kConversation + "\n", "messages");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].json, nlohmann::ordered_json::parse(call));
  EXPECT_EQ(rows[0].json.dump(), nlohmann::ordered_json::parse(call).dump());
  EXPECT_EQ(rows[0].text, "Weather?");
  EXPECT_EQ(row_place(rows[1]), "a.jsonl:2");
  EXPECT_EQ(rows[0].row_id.size(), 64u);
  EXPECT_NE(rows[0].row_id, rows[1].row_id);
}

TEST_F(ReadRows, ByteOrderMarkCarriageReturnsAndBlankLines) {
  const auto rows =
      read("a.jsonl", "\xEF\xBB\xBF" + std::string(kConversation) + "\r\n\r\n" + kConversation + "\r\n", "messages");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[1].line, 3);
  EXPECT_EQ(rows[0].row_id, rows[1].row_id);
}

TEST_F(ReadRows, EveryProblemOfAFileAtOnce) {
  const std::string text = std::string(kConversation) + "\n" + R"({"messages":[{"role":"user" "content":"SECRET"}]})" + "\n" +
                           R"({"messages":[{"role":"usr","content":"x"}]})" + "\n" +
                           R"({"messages":[{"role":"user","content":"x"}]})" + "\n" +
                           R"({"messages":[{"role":"assistant","content":null}]})" + "\n" + R"({"message":[]})" + "\n" +
                           R"({"messages":"x"})" + "\n" + R"({"messages":[{"role":"user","content":"a","content":"b"}]})" +
                           "\n" + "{\"messages\":\"\xE9\"}\n" + "[1]\n" + R"({"a":1})" + "x\n";
  const std::string error = error_of("bad.jsonl", text, "messages");
  EXPECT_THAT(error,
              AllOf(HasSubstr("10 problems"), HasSubstr("bad.jsonl:2:29: not JSON:"),
                    HasSubstr("bad.jsonl:3: message 1: unknown role \"usr\""), HasSubstr("bad.jsonl:4: nothing to train on"),
                    HasSubstr("bad.jsonl:5: message 1 (assistant) has null content")));
  EXPECT_THAT(error,
              AllOf(HasSubstr("bad.jsonl:6: no column \"messages\"; the row has \"message\""),
                    HasSubstr("bad.jsonl:7: expected \"messages\" to be a list, got a JSON string"),
                    HasSubstr("bad.jsonl:8: the key \"content\" stands twice"),
                    HasSubstr("bad.jsonl:9: not UTF-8: byte 0xE9 at offset "), HasSubstr("bad.jsonl:10: expected an object"),
                    HasSubstr("bad.jsonl:11:8: not JSON:"), Not(HasSubstr("SECRET"))));
  const auto offset = text.find('\xE9');
  EXPECT_THAT(error, HasSubstr("at offset " + std::to_string(offset) + " of the file"));
}

TEST_F(ReadRows, ShowsTwentyProblemsAndCountsTheRest) {
  std::string text;
  for (int line = 0; line < 50; ++line) text += "{\n";
  const std::string error = error_of("bad.jsonl", text, "messages");
  EXPECT_THAT(error, AllOf(HasSubstr("50 problems"), HasSubstr("bad.jsonl:20:"), Not(HasSubstr("bad.jsonl:21:")),
                           HasSubstr("and 30 more")));
}

TEST_F(ReadRows, FilesWithoutRows) {
  EXPECT_THAT(error_of("a.jsonl", "", "messages"), HasSubstr("a.jsonl: the file is empty"));
  EXPECT_THAT(error_of("a.jsonl", "\xEF\xBB\xBF\r\n \n", "messages"), HasSubstr("a.jsonl: the file is empty"));
  EXPECT_THAT(error_of("a.csv", "text,label\n", "labelled"), HasSubstr("a.csv: the file has no rows"));
  EXPECT_THAT(error_of("a.json", "[\n {}\n]", "messages"), HasSubstr("a JSON list: write one object a line"));
  EXPECT_THAT(error_of("a.xlsx", "x", "labelled"), HasSubstr("expected a file that ends in .jsonl"));
  EXPECT_THAT(error_of("a.jsonl", "\xFF\xFE{\0", "messages"), HasSubstr("UTF-16"));
  EXPECT_THROW(read_rows({(folder / "none.jsonl").string(), "messages"}), UserError);
}

TEST_F(ReadRows, NumbersAndDepthThatCannotBeKept) {
  EXPECT_THAT(error_of("a.jsonl", R"({"messages":[],"n":123456789012345678901234})", "messages"),
              HasSubstr("an integer beyond 64 bits"));
  EXPECT_THAT(error_of("a.jsonl", std::string(300, '['), "messages"), HasSubstr("a JSON list"));
  EXPECT_THAT(error_of("a.jsonl", R"({"a":)" + std::string(100'000, '['), "messages"), HasSubstr("nested deeper than 128"));
}

TEST_F(ReadRows, CompletionAsTextMessagesAndTemplates) {
  const auto plain = read("a.jsonl", R"({"prompt":"2+2?","completion":" 4"})", "completion", {.system = "Be brief."});
  EXPECT_EQ(plain[0].json.dump(), R"({"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"2+2?"},)"
                                  R"({"role":"assistant","content":" 4"}]})");
  const auto listed = read(
      "b.jsonl", R"({"prompt":[{"role":"user","content":"a"}],"completion":[{"role":"assistant","content":"b"}],"tools":[]})",
      "completion");
  EXPECT_EQ(listed[0].json.dump(),
            R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"tools":[]})");
  const auto filled = read("c.jsonl", R"({"instruction":"Add","input":3,"output":"{4}"})", "completion",
                           {.prompt = "{instruction}: {{{input}}}", .completion = "{output}"});
  EXPECT_EQ(filled[0].text, "Add: {3}");
  EXPECT_EQ(answer_of(filled[0]), "{4}");
  EXPECT_EQ(prompt_of(filled[0]).dump(), R"({"messages":[{"role":"user","content":"Add: {3}"}]})");
  EXPECT_THAT(error_of("d.jsonl", R"({"prompt":"a","completion":""})", "completion"),
              HasSubstr("d.jsonl:1: the completion is empty"));
  EXPECT_THAT(error_of("d.jsonl", R"({"prompt":null,"completion":"b"})", "completion"),
              HasSubstr("column \"prompt\" is null, expected text"));
}

TEST_F(ReadRows, LabelledRowsOfCsv) {
  const auto rows = read("t.csv", "text,queue,id\n\"Hello, \"\"you\"\"\nthere\",billing,1\r\nNA,,2\n", "labelled",
                         {.label = "id", .prompt = "Route: {text} ({queue})"});
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].text, "Hello, \"you\"\nthere");
  EXPECT_EQ(*rows[0].label, "1");
  EXPECT_EQ(
      rows[0].json.dump(),
      R"x({"messages":[{"role":"user","content":"Route: Hello, \"you\"\nthere (billing)"},{"role":"assistant","content":"1"}]})x");
  EXPECT_EQ(prompt_of(rows[1])["messages"][0]["content"], "Route: NA ()");  // an empty value is an empty text; NA is no null
  EXPECT_EQ(rows[1].line, 4);
}

TEST_F(ReadRows, LabelledColumnsThatAreMissingOrEmpty) {
  const std::string text = "text,category\nhello,a\n,b\nhi,\n";
  EXPECT_THAT(error_of("t.csv", text, "labelled"),
              HasSubstr("t.csv:2: no column \"label\"; the row has \"text\", \"category\""));
  EXPECT_THAT(error_of("t.csv", text, "labelled", {.label = "category"}),
              AllOf(HasSubstr("2 problems"), HasSubstr("t.csv:3: column \"text\" is empty"),
                    HasSubstr("t.csv:4: column \"category\" is empty")));
  EXPECT_THAT(error_of("t.csv", text, "labelled", {.label = "category", .prompt = "{nope}"}), HasSubstr("no column \"nope\""));
  EXPECT_THAT(error_of("t.csv", text, "labelled", {.prompt = "a { b"}), HasSubstr("write {{ for a brace"));
  EXPECT_THAT(error_of("t.csv", text, "text", {.label = "category"}), HasSubstr("expected no `label` beside format text"));
  EXPECT_THAT(error_of("t.csv", text, "chat"), HasSubstr("expected format messages, completion"));
}

TEST_F(ReadRows, CsvStructure) {
  EXPECT_THAT(error_of("t.csv", "text,label\na,b,c\nd\ne,f\n", "labelled"),
              AllOf(HasSubstr("t.csv:2: 3 values, but the header has 2"), HasSubstr("t.csv:3: 1 values")));
  EXPECT_THAT(error_of("t.csv", "text,label\nok,x\n\"open,b\nc,d\n", "labelled"),
              HasSubstr("t.csv:3: a quote that is opened in this record is never closed"));
  EXPECT_THAT(error_of("t.csv", "text,label\n\"a\"b,c\n", "labelled"),
              HasSubstr("t.csv:2: text after the closing quote of value 1"));
  EXPECT_THAT(error_of("t.csv", "text,text\na,b\n", "labelled"), HasSubstr("two columns are named \"text\""));
  EXPECT_THAT(error_of("t.csv", "text,label\n\"a\n\xC3\",b\n", "labelled"),
              HasSubstr("t.csv:3: not UTF-8: byte 0xC3 at offset 14 of the file"));
  const auto rows = read("t.tsv", "\xEF\xBB\xBFtext\tlabel\nsay \"hi\", now\tgreet\n", "labelled");
  EXPECT_EQ(rows[0].text, "say \"hi\", now");
}

TEST_F(ReadRows, PromptsHaveNoAnswer) {
  const auto rows =
      read("p.jsonl", std::string(R"({"prompt":"a"})") + "\n" + R"({"messages":[{"role":"user","content":"b"}]})" + "\n",
           "prompts", {.system = "s"});
  EXPECT_EQ(rows[0].kind, RowKind::kPrompt);
  EXPECT_EQ(rows[0].json["messages"].size(), 2u);
  EXPECT_EQ(rows[1].json.dump(), R"({"messages":[{"role":"system","content":"s"},{"role":"user","content":"b"}]})");
  EXPECT_THAT(error_of("q.jsonl", kConversation, "prompts"), HasSubstr("the last message is the assistant's"));
}

TEST_F(ReadRows, TextFoldersAndPatternsInSortedOrder) {
  write("docs/b.md", "second");
  write("docs/a/index.md", "first");
  write("docs/z.txt", "third\r\n");
  write("docs/.hidden/x.md", "no");
  write("docs/picture.png", "no");
  const auto rows = read_rows({(folder / "docs").string(), "text"});
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].source_file, "a/index.md");
  EXPECT_EQ(rows[0].kind, RowKind::kText);
  EXPECT_EQ(rows[2].text, "third\r\n");
  EXPECT_EQ(read_rows({(folder / "docs/**/*.md").string(), "text"}).size(), 2u);
  EXPECT_EQ(read_rows({(folder / "docs/?.md").string(), "text"}).size(), 1u);
  EXPECT_THROW(read_rows({(folder / "docs/*.rst").string(), "text"}), UserError);
  EXPECT_THROW(read_rows({(folder / "docs").string(), "labelled"}), UserError);
}

TEST_F(ReadRows, TextColumn) {
  const auto rows = read("t.jsonl", R"({"body":"one"})", "text", {.text = "body"});
  EXPECT_EQ(rows[0].json.dump(), R"({"text":"one"})");
  EXPECT_THAT(error_of("t.jsonl", R"({"body":["one"]})", "text", {.text = "body"}),
              HasSubstr("column \"body\" is a list, expected text"));
}

}  // namespace
}  // namespace graft
