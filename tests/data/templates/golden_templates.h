// The real templates of shared/data/chat_templates with what transformers renders from them.
#pragma once
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace graft::golden {

using Json = nlohmann::ordered_json;

inline constexpr int64_t kClock = 1772701623;  // SOURCE_DATE_EPOCH of the goldens: 2026-03-05T09:07:03Z

inline std::filesystem::path folder() {
  const char* shared = std::getenv("GRAFT_SHARED");
  const char* source = std::getenv("GRAFT_SOURCE_DIR");
  const auto repository = source ? std::filesystem::path(source) : std::filesystem::path(__FILE__).parent_path() / "../../..";
  return (shared ? std::filesystem::path(shared) : repository / ".." / "shared") / "data" / "chat_templates";
}

inline std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path.string() + " (set GRAFT_SHARED)");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

struct Case {
  std::string id;
  Json conversation;  // messages, tools, add_generation_prompt, other arguments
  Json expected;      // text or error; generation
};

struct Template {
  std::string name, source;
  Json special_tokens;
  std::vector<Case> cases;
};

inline std::vector<std::string> names() {
  std::vector<std::string> result;
  std::error_code missing;  // the test that counts the templates says so
  for (const auto& entry : std::filesystem::directory_iterator(folder(), missing)) {
    if (entry.path().extension() == ".jinja") result.push_back(entry.path().stem().string());
  }
  std::sort(result.begin(), result.end());
  return result;
}

// A name that GoogleTest takes.
inline std::string test_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::replace_if(name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
  return name;
}

inline Template load(const std::string& name) {
  Json conversations = Json::object();
  std::istringstream lines(read(folder() / "conversations.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    Json conversation = Json::parse(line);
    const std::string id = conversation.at("id");
    conversation.erase("id");
    conversations[id] = std::move(conversation);
  }
  const Json golden = Json::parse(read(folder() / (name + ".golden.json")));
  Template result{name, read(folder() / (name + ".jinja")), golden.at("special_tokens"), {}};
  for (const Json& item : golden.at("cases")) {
    const std::string id = item.at("id");
    result.cases.push_back({id, conversations.at(id), item});
  }
  return result;
}

// Spans of the goldens count code points; ours count bytes.
inline size_t code_points_before(const std::string& text, size_t byte) {
  size_t count = 0;
  for (size_t i = 0; i < byte && i < text.size(); ++i) count += (static_cast<unsigned char>(text[i]) & 0xC0) != 0x80;
  return count;
}

}  // namespace graft::golden
