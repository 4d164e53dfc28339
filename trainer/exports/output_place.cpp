#include "trainer/exports/output_place.h"

#include <algorithm>
#include <system_error>

#include "checkpoints/atomic_file.h"
#include "kernels/common/error.h"

namespace graft {

namespace fs = std::filesystem;

namespace {

bool looks_like_an_export(const fs::path& folder) {
  if (fs::is_empty(folder)) return true;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (!entry.is_regular_file() || entry.is_symlink()) return false;
  }
  return fs::exists(folder / "config.json") || fs::exists(folder / "adapter_config.json");
}

bool holds(const fs::path& folder, const fs::path& inner) {   // inner is folder, or lies in it
  const auto [end, ignored] = std::mismatch(folder.begin(), folder.end(), inner.begin(), inner.end());
  return end == folder.end();
}

}  // namespace

fs::path check_output(const fs::path& out, const fs::path& base, bool is_folder, bool replace) {
  auto path = out.lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  if (path.empty()) fail("exports", "expected a path to write to, got none — give --out");
  if (holds(fs::weakly_canonical(path), fs::weakly_canonical(base))) {
    fail("exports", "expected a new path, got {}, which {} — the base is never overwritten; choose another path", path.string(),
         fs::weakly_canonical(path) == fs::weakly_canonical(base) ? "is the base" : "holds the base");
  }
  if (!is_folder && path.extension() != ".gguf") {
    fail("exports", "expected a file named *.gguf, got {} — engines know the format by that ending", path.string());
  }
  if (fs::exists(fs::symlink_status(path))) {
    if (fs::is_directory(path) != is_folder) {
      fail("exports", "expected a {} to write to, got {}, which is a {} — choose another path", is_folder ? "folder" : "file",
           path.string(), is_folder ? "file" : "folder");
    }
    if (!replace) fail("exports", "expected a new path, got {}, which exists — choose another path, or replace it with --force", path.string());
    if (is_folder && !looks_like_an_export(path)) {
      fail("exports", "expected an earlier export to replace, got {}, which holds other files — choose another path, or delete it yourself",
           path.string());
    }
  }
  if (path.has_parent_path()) make_private_directory(path.parent_path());
  return path;
}

std::string last_name_of(const fs::path& path) {
  auto name = path.lexically_normal();
  if (!name.has_filename()) name = name.parent_path();
  if (name.filename() == "." || name.filename() == ".." || name.empty()) name = fs::weakly_canonical(fs::absolute(path));
  return name.filename().string();
}

std::string shell_word(const fs::path& path) {
  const auto text = path.string();
  const auto is_plain = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || std::string_view("_@%+=:,./-").find(c) != std::string_view::npos; };
  if (!text.empty() && std::all_of(text.begin(), text.end(), is_plain)) return text;
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

StagedFolder::StagedFolder(fs::path final_path) : final_(std::move(final_path)), staged_(final_.string() + ".partial") {
  fs::remove_all(staged_);   // of a killed process
  make_private_directory(staged_);
}

StagedFolder::~StagedFolder() {
  std::error_code ignored;
  if (!staged_.empty()) fs::remove_all(staged_, ignored);
}

void StagedFolder::commit() {
  sync_directory(staged_);
  const fs::path old = final_.string() + ".replaced";
  const bool replaces = fs::exists(final_);
  if (replaces) {
    fs::remove_all(old);
    rename_directory_atomic(final_, old);
  }
  rename_directory_atomic(staged_, final_);
  staged_.clear();
  if (replaces) fs::remove_all(old);
}

}  // namespace graft
