// libFuzzer: any bytes as a JSONL file. Rows are read or refused with a UserError; rows that are read survive what follows
// them: their JSON reads back to itself, texts are normalised and compared.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "data/rows/dataset.h"
#include "data/rows/duplicates.h"
#include "data/rows/json_line.h"
#include "data/rows/normalised_text.h"
#include "tests/fuzz/processor_time.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const graft::ProcessorTime limit;
  if (size == 0) return 0;
  // The first byte chooses the format, the rest is the file.
  static const graft::SourceOptions kSources[] = {
      {"", "messages"}, {"", "completion"},
      {"", "text"},     {"", "labelled"},
      {"", "prompts"},  {.format = "completion", .prompt = "{text} {{}} {label}", .completion = "{label}", .system = "s"}};
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    const auto rows = graft::rows_of_text(text, "fuzz.jsonl", kSources[data[0] % std::size(kSources)]);
    for (const graft::Row& row : rows) {
      if (graft::parse_json_line(row.json.dump()) != row.json) std::abort();
      graft::prompt_of(row);
      graft::answer_of(row);
    }
    graft::find_duplicates({&rows});
  } catch (const graft::UserError&) {
  }
  return 0;
}
