// The state of reading one recipe: where we are, what was wrong so far. All problems of a file are shown at once.
#pragma once
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/recipe/yaml_tree.h"

namespace graft {

// Allowed numbers; shown in errors and documentation.
struct Range {
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
  bool above_low = false, below_high = false;   // the bound itself is not allowed
  bool holds(double value) const;
  std::string text() const;   // "of at least 1", "above 0", "from 0 to below 1"; empty when unbounded
};
inline Range at_least(double low) { return {.low = low}; }
inline Range above(double low) { return {.low = low, .above_low = true}; }
inline Range from_to_below(double low, double high) { return {.low = low, .high = high, .below_high = true}; }

class Reader {
 public:
  // file: as shown in errors; folder: what relative paths are relative to. known_keys: all keys of the schema, for suggestions.
  Reader(std::string file, std::filesystem::path folder, std::vector<std::string> known_keys);

  // Keys entered; restored by the destructor. key: "train", or a position "0".
  class Inside {
   public:
    Inside(Reader& reader, std::string_view key);
    ~Inside();
    Inside(const Inside&) = delete;

   private:
    Reader& reader_;
    size_t length_;
  };
  const std::string& path() const { return path_; }   // "data.train.0.path"

  // Each reads one value, or notes a problem and returns nothing.
  std::optional<int64_t> integer(const YamlValue& value, const Range& range, const std::string& also = {});
  std::optional<double> number(const YamlValue& value, const Range& range, const std::string& also = {});
  std::optional<bool> boolean(const YamlValue& value);
  std::optional<std::string> text(const YamlValue& value);
  std::optional<std::string> choice(const YamlValue& value, const std::vector<std::string>& allowed);
  // A path, made relative to the working directory where it lies below it, else absolute. In the file it is relative to the recipe's folder,
  // in a --set to the working directory, where the shell completes it; `~/` is the home folder.
  std::optional<std::string> path(const YamlValue& value, bool of_working_directory = false);
  bool expect_map(const YamlValue& value);
  bool expect_list(const YamlValue& value);

  void problem(const YamlPlace& place, const std::string& text);
  // "expected <key> to be <what>, got <value>".
  void expected(const YamlValue& value, const std::string& what, const std::string& advice = {});
  void unknown_key(const YamlValue::Entry& entry, const std::vector<std::string>& keys_here);
  void missing_key(const YamlPlace& place, const std::string& key, const std::string& type);

  // Throws one UserError that lists the problems (the first 20), if there are any.
  void finish() const;

 private:
  std::string file_, path_;
  std::filesystem::path folder_;
  std::vector<std::string> known_keys_, problems_;
};

// Edits (insert, delete, replace, swap of neighbours) between two texts.
size_t edit_distance(std::string_view a, std::string_view b);
// Relative to the working directory when below it, else absolute; normalised.
std::string shown_path(const std::filesystem::path& path);

}  // namespace graft
