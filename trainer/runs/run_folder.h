// The folder of a run: its paths and its lock. Folders 0700, files 0600.
#pragma once
#include <filesystem>
#include <string>

namespace graft {

class RunFolder {
 public:
  // Makes the folder and takes its lock; UserError when another process holds it. `resume` false: UserError when it already holds a run.
  RunFolder(const std::filesystem::path& path, bool resume);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path recipe() const { return path_ / "recipe.yaml"; }
  std::filesystem::path manifest() const { return path_ / "manifest.json"; }
  std::filesystem::path metrics() const { return path_ / "metrics.jsonl"; }
  std::filesystem::path log() const { return path_ / "log.txt"; }
  std::filesystem::path tensorboard() const { return path_ / "tensorboard"; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }
  std::filesystem::path adapter() const { return path_ / "adapter"; }
  std::filesystem::path exports() const { return path_ / "exports"; }
  std::filesystem::path certificates() const { return path_ / "certificates"; }

 private:
  std::filesystem::path path_;
  int lock_ = -1;
};

}  // namespace graft
