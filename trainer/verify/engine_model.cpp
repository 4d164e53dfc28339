// An engine in a process of its own: requests and answers are lines of JSON (tools/engines/reader_protocol.py).
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sys/wait.h>
#include <unistd.h>

#include <ATen/ops/empty.h>
#include <nlohmann/json.hpp>

#include "kernels/common/error.h"
#include "trainer/verify/served_model.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// The scripts lie beside the program (build/<preset>/graft: ../../tools/engines) or where GRAFT_ENGINES says.
fs::path engines_folder() {
  if (const char* folder = std::getenv("GRAFT_ENGINES")) return folder;
  const auto program = fs::read_symlink("/proc/self/exe").parent_path();
  for (const auto* relative : {"engines", "../../tools/engines", "../tools/engines"}) {
    if (fs::exists(program / relative / "reader_protocol.py")) return fs::canonical(program / relative);
  }
  fail("verify", "expected the engine readers (tools/engines) beside the program, got none — set GRAFT_ENGINES to that folder");
}

// The interpreter that has the engine: GRAFT_PYTHON, the project's own environment, else python3.
std::string python_program() {
  if (const char* program = std::getenv("GRAFT_PYTHON")) return program;
  const auto own = engines_folder() / "../../.deps/python/bin/python";
  return fs::exists(own) ? own.lexically_normal().string() : "python3";
}

class EngineProcess {
 public:
  EngineProcess(const std::string& engine) : engine_(engine) {
    const auto script = (engines_folder() / (engine == "llama.cpp" ? "llama_cpp_reader.py" : engine + "_reader.py")).string();
    if (!fs::exists(script)) fail("verify", "expected --engine llama.cpp or transformers, got {}", engine);
    const auto python = python_program();
    int to_child[2], from_child[2];
    if (pipe(to_child) != 0 || pipe(from_child) != 0) throw MachineError("verify", std::string("could not make a pipe: ") + std::strerror(errno));
    signal(SIGPIPE, SIG_IGN);
    child_ = fork();
    if (child_ < 0) throw MachineError("verify", std::string("could not start a process: ") + std::strerror(errno));
    if (child_ == 0) {
      dup2(to_child[0], 0);
      dup2(from_child[1], 1);
      if (FILE* null = std::fopen("/dev/null", "w"); null && !std::getenv("GRAFT_ENGINE_MESSAGES")) dup2(fileno(null), 2);
      for (const int end : {to_child[0], to_child[1], from_child[0], from_child[1]}) close(end);
      setenv("HF_HUB_OFFLINE", "1", 1);
      execlp(python.c_str(), python.c_str(), script.c_str(), nullptr);
      _exit(127);
    }
    close(to_child[0]);
    close(from_child[1]);
    requests_ = fdopen(to_child[1], "w");
    answers_ = fdopen(from_child[0], "r");
  }
  ~EngineProcess() {
    std::fclose(requests_);   // its standard input ends: it leaves
    std::fclose(answers_);
    int status = 0;
    waitpid(child_, &status, 0);
  }
  EngineProcess(const EngineProcess&) = delete;

  json ask(const json& request) {
    const auto text = request.dump() + "\n";
    const bool sent = std::fputs(text.c_str(), requests_) >= 0 && std::fflush(requests_) == 0;
    std::string line;
    for (int c; sent && (c = std::fgetc(answers_)) != EOF && c != '\n';) line.push_back(static_cast<char>(c));
    if (line.empty()) {
      fail("verify", "expected an answer of the engine {}, got none: it could not be started or ended — install it for the interpreter in GRAFT_PYTHON (tools/setup --tests does), or set GRAFT_ENGINE_MESSAGES=1 to see what it prints",
           engine_);
    }
    auto answer = json::parse(line, nullptr, false);
    if (answer.is_discarded() || answer.contains("error")) {
      fail("verify", "expected the engine {} to {}, got: {}", engine_, request["command"].get<std::string>(),
           answer.is_discarded() ? line.substr(0, 300) : answer["error"].get<std::string>());
    }
    return answer;
  }

 private:
  std::string engine_;
  pid_t child_ = -1;
  FILE* requests_ = nullptr;
  FILE* answers_ = nullptr;
};

class EngineModel : public ServedModel {
 public:
  EngineModel(const std::string& engine, const ServedArtefact& artefact, int64_t threads, const std::string& cache_type)
      : process_(engine), folder_(fs::temp_directory_path() / fmt::format("graft-verify-{}", getpid())) {
    json request = {{"command", "load"}, {"model", (artefact.is_adapter() ? artefact.base : artefact.path).string()}, {"threads", threads}, {"cache", cache_type}};
    if (artefact.is_adapter()) request["adapter"] = artefact.path.string();
    const auto loaded = process_.ask(request);
    reader_ = loaded.at("reader").get<std::string>();
    stop_ids_ = loaded.at("stop").get<std::vector<int32_t>>();
    if (!loaded.at("end").is_null()) end_id_ = loaded["end"].get<int32_t>();
    fs::create_directories(folder_);
    fs::permissions(folder_, fs::perms::owner_all);
  }
  ~EngineModel() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  std::string reader() const override { return reader_; }

  void logits(const std::vector<std::vector<int32_t>>& rows, const LogitsBlock& block) override {
    const auto file = folder_ / "logits.f32";
    for (size_t row = 0; row < rows.size(); ++row) {
      const auto answer = process_.ask({{"command", "logits"}, {"ids", rows[row]}, {"out", file.string()}});
      const auto count = answer.at("rows").get<int64_t>(), columns = answer.at("columns").get<int64_t>();
      if (count != static_cast<int64_t>(rows[row].size())) fail("verify", "expected {} rows of logits from the engine, got {}", rows[row].size(), count);
      std::ifstream in(file, std::ios::binary);
      for (int64_t first = 0; first < count; first += kBlockRows) {
        auto values = at::empty({std::min(kBlockRows, count - first), columns}, at::kFloat);
        in.read(reinterpret_cast<char*>(values.data_ptr<float>()), values.numel() * 4);
        if (!in) fail("verify", "expected {} x {} logits in the engine's file, got fewer", count, columns);
        block(row, first, values);
      }
    }
  }

  std::vector<GreedyAnswer> greedy(const std::vector<std::vector<int32_t>>& prompts, int64_t max_tokens) override {
    std::vector<GreedyAnswer> answers;
    for (const auto& prompt : prompts) {
      const auto answer = process_.ask({{"command", "generate"}, {"ids", prompt}, {"max_tokens", max_tokens}, {"stop", stop_ids_}});
      answers.push_back({answer.at("ids").get<std::vector<int32_t>>(), answer.at("stopped").get<bool>()});
    }
    return answers;
  }

  std::vector<int32_t> stop_ids() override { return stop_ids_; }
  std::optional<int32_t> end_id() override { return end_id_; }

  std::vector<int32_t> tokenize(const std::string& text) override {
    return process_.ask({{"command", "tokenize"}, {"text", text}}).at("ids").get<std::vector<int32_t>>();
  }

 private:
  EngineProcess process_;
  fs::path folder_;
  std::string reader_;
  std::vector<int32_t> stop_ids_;
  std::optional<int32_t> end_id_;
};

}  // namespace

std::unique_ptr<ServedModel> open_with_engine(const std::string& engine, const ServedArtefact& artefact, int64_t threads, const std::string& cache_type) {
  return std::make_unique<EngineModel>(engine, artefact, threads, cache_type);
}

}  // namespace graft
