// The files that a source's path names: one file, a folder, or a glob.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

struct NamedFile {
  std::filesystem::path path;
  std::string name;  // the file name; below a folder or glob: the path relative to it, with forward slashes
};

bool is_glob(std::string_view path);
// `*` and `?` match within one name, `**` across folders ("**/" also matches nothing).
bool glob_matches(std::string_view pattern, std::string_view path);
// One file; or the .md and .txt files below a folder; or the files that a glob matches. Sorted by name, byte by byte. Names
// that begin with a dot are left out below a folder, and are matched only by a pattern part that begins with a dot. Throws
// UserError when nothing is found.
std::vector<NamedFile> list_text_files(const std::string& path);

}  // namespace graft
