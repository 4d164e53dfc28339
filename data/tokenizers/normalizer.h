// The normaliser of a tokenizer.json: none, or Unicode normalisation forms in sequence.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace graft {

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

class Normalizer {
 public:
  Normalizer() = default;
  // The value of "normalizer": null, {"type": "NFC"|"NFD"|"NFKC"|"NFKD"}, or a Sequence of these. Others: UserError.
  explicit Normalizer(const nlohmann::json& description);

  bool does_nothing() const { return forms_.empty(); }
  // As the reference library, whose tables are Unicode 10's: characters that Unicode added later stay as they are. Stray bytes
  // stay too.
  std::string normalize(std::string_view text) const;
  const std::vector<NormalForm>& forms() const { return forms_; }
  nlohmann::ordered_json to_json() const;

 private:
  std::vector<NormalForm> forms_;
};

}  // namespace graft
