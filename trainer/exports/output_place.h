// Where an export may go, and folders that are there whole or not at all.
#pragma once
#include <filesystem>
#include <string>

namespace graft {

// `out` without a trailing slash, its parent folder made. UserError when
//   it is the base, or a folder that holds the base;
//   it exists and `replace` is false, or is a folder that does not look like an export (no config.json or adapter_config.json, or
//   folders in it): --force must not delete what graft did not write;
//   it is a folder where a file is written, the reverse, or a GGUF file not named *.gguf.
std::filesystem::path check_output(const std::filesystem::path& out, const std::filesystem::path& base, bool is_folder, bool replace);

// The last name of a path, also of "models/base/" and ".".
std::string last_name_of(const std::filesystem::path& path);

// A path as a POSIX shell reads it: quoted where it must be.
std::string shell_word(const std::filesystem::path& path);

// Files are written into <final>.partial; commit() gives it its name, in place of an older export. Without commit() it disappears.
class StagedFolder {
 public:
  explicit StagedFolder(std::filesystem::path final_path);
  ~StagedFolder();
  StagedFolder(const StagedFolder&) = delete;
  const std::filesystem::path& path() const { return staged_; }
  void commit();

 private:
  std::filesystem::path final_, staged_;
};

}  // namespace graft
