#include "data/rows/text_files.h"

#include <algorithm>

#include "kernels/common/error.h"

namespace graft {
namespace {

namespace fs = std::filesystem;

// Parts between slashes.
std::vector<std::string_view> parts_of(std::string_view path) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    parts.push_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// One name against one pattern part, with a single point to come back to: linear in practice, quadratic at worst.
bool part_matches(std::string_view pattern, std::string_view name) {
  if (name.starts_with('.') && !pattern.starts_with('.')) return false;
  size_t p = 0, n = 0, star = std::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p, ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

bool is_text_name(const std::string& name) {
  const std::string ending = fs::path(name).extension().string();
  return ending == ".md" || ending == ".txt";
}

bool has_hidden_part(const std::string& name) {
  const auto parts = parts_of(name);
  return std::any_of(parts.begin(), parts.end(), [](std::string_view part) { return part.starts_with('.'); });
}

// Every regular file below `root`, named relative to it.
std::vector<NamedFile> walk(const fs::path& root) {
  std::vector<NamedFile> files;
  std::error_code error;
  for (auto entry = fs::recursive_directory_iterator(root, error); !error && entry != fs::recursive_directory_iterator();
       entry.increment(error)) {
    std::error_code unreadable;
    if (entry->is_regular_file(unreadable))
      files.push_back({entry->path(), entry->path().lexically_relative(root).generic_string()});
  }
  if (error) fail("data", "expected a readable folder, got {} ({}) — check its permissions", error.message(), root.string());
  return files;
}

}  // namespace

bool is_glob(std::string_view path) { return path.find_first_of("*?") != std::string_view::npos; }

bool glob_matches(std::string_view pattern, std::string_view path) {
  const auto patterns = parts_of(pattern), names = parts_of(path);
  // matched[n]: the patterns so far can match the first n names.
  std::vector<bool> matched(names.size() + 1, false);
  matched[0] = true;
  for (const std::string_view part : patterns) {
    std::vector<bool> next(names.size() + 1, false);
    for (size_t n = 0; n <= names.size(); ++n) {
      if (part == "**") {
        next[n] = matched[n] || (n > 0 && next[n - 1] && !names[n - 1].starts_with('.'));
      } else if (n > 0) {
        next[n] = matched[n - 1] && part_matches(part, names[n - 1]);
      }
    }
    matched = std::move(next);
  }
  return matched.back();
}

std::vector<NamedFile> list_text_files(const std::string& path) {
  std::vector<NamedFile> files;
  const bool is_folder = fs::is_directory(path);
  if (is_glob(path) && !fs::exists(path)) {
    // The folder is the part before the first name with a wildcard.
    const size_t slash = path.rfind('/', path.find_first_of("*?"));
    const fs::path root = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
    const std::string pattern = slash == std::string::npos ? path : path.substr(slash + 1);
    if (fs::is_directory(root)) files = walk(root);
    std::erase_if(files, [&](const NamedFile& file) { return !glob_matches(pattern, file.name); });
  } else if (is_folder) {
    files = walk(path);
    std::erase_if(files, [](const NamedFile& file) { return !is_text_name(file.name) || has_hidden_part(file.name); });
  } else {
    files.push_back({path, fs::path(path).filename().string()});
  }
  if (files.empty()) {
    fail("data", "expected {}, got none ({}) — check the path",
         is_folder ? "files that end in .md or .txt" : "files that the pattern matches", path);
  }
  std::sort(files.begin(), files.end(), [](const NamedFile& a, const NamedFile& b) { return a.name < b.name; });
  return files;
}

}  // namespace graft
