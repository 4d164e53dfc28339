// What the licences of base models ask of those who fine-tune and distil them, as far as graft knows: for `plan`, which refuses what somebody should
// decide (unknown, non-commercial or limited to some countries) until the recipe says accept_licence. No legal advice. The table stands in licences.md too.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

struct LicenceTerms {
  std::string_view identifier;     // as model cards write it, in lower case: "apache-2.0"
  std::string_view name;
  std::string_view families;       // that mostly come under it
  bool commercial = true;
  std::string_view commercial_conditions;   // "" none
  std::string_view student;        // does a distilled student inherit it: "no", "yes", "unverified"
  std::string_view territory;      // where it may not be used; "" no limit
  std::string_view naming;         // what must be said or called how; "" nothing
  std::string_view source;         // file and SHA-256, page and date, or "unverified"
};

std::span<const LicenceTerms> licence_table();

// The terms that a declaration means: an identifier ("apache-2.0", "License: MIT") or the title of a licence's text ("Apache License"); null: unknown.
const LicenceTerms* find_licence(std::string_view declared);

// Why a run on a base with these declarations needs somebody's word; "" when it does not. accepted: the recipe's accept_licence.
struct LicenceFinding {
  std::string identifier;          // what accept_licence must say: of the table, or "unknown"
  std::string problem;             // "" fine, or accepted
  std::vector<std::string> notes;  // lines of the plan: conditions, contradictions
};
// declared: by the model's own licence file first (it wins), then model card, then metadata; each may be "" or "unknown".
LicenceFinding check_licence(const std::vector<std::string>& declared, const std::vector<std::string>& accepted);

std::string licence_markdown();    // licences.md

}  // namespace graft
