// What tests share: where the repository is, a folder that disappears, a Python reference that runs.
#pragma once
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace graft::test {

// The repository's root: GRAFT_SOURCE_DIR of the environment, else of the build.
inline std::filesystem::path source_dir() {
  if (const char* set = std::getenv("GRAFT_SOURCE_DIR")) return set;
  return GRAFT_TEST_SOURCE_DIR;
}

// Data for tests that lies beside the repository: GRAFT_SHARED of the environment, else ../shared.
inline std::filesystem::path shared_dir() {
  if (const char* set = std::getenv("GRAFT_SHARED")) return set;
  return source_dir() / ".." / "shared";
}

// site-packages of the pinned Python environment.
inline std::filesystem::path site_packages() {
  for (const auto& entry : std::filesystem::directory_iterator(source_dir() / ".deps/python/lib"))
    if (std::filesystem::exists(entry.path() / "site-packages")) return entry.path() / "site-packages";
  throw std::runtime_error("no site-packages in .deps/python: run tools/setup first");
}

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "graft_test_XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed: " + pattern);
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path.string());
  return {std::istreambuf_iterator<char>(in), {}};
}

// A file of plain values (no header), as numpy's tobytes() writes them.
template <typename T>
std::vector<T> read_values(const std::filesystem::path& path) {
  const std::string bytes = read_file(path);
  if (bytes.size() % sizeof(T) != 0) throw std::runtime_error("a value is cut at the end of " + path.string());
  std::vector<T> values(bytes.size() / sizeof(T));
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(values.data()));
  return values;
}

inline void write_file(const std::filesystem::path& path, std::string_view bytes) {
  std::filesystem::remove(path);  // ext4 flushes a file that is truncated and written again: 3 ms
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!out.flush()) throw std::runtime_error("cannot write " + path.string());
}

// Runs `script` (relative to the repository) in the pinned environment, offline; throws with its output when it fails.
inline std::string run_python(const std::string& script, const std::vector<std::string>& arguments) {
  std::string command = "HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES= '" + (source_dir() / ".deps/python/bin/python").string() +
                        "' '" + (source_dir() / script).string() + "'";
  for (const std::string& argument : arguments) command += " '" + argument + "'";
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("cannot start " + command);
  std::string output;
  char buffer[4096];
  for (size_t got; (got = fread(buffer, 1, sizeof buffer, pipe)) > 0;) output.append(buffer, got);
  if (const int status = pclose(pipe); status != 0) throw std::runtime_error(script + " failed:\n" + output);
  return output;
}

}  // namespace graft::test
