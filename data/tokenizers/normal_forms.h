// Unicode normalisation forms as the reference library makes them.
#pragma once
#include <string>
#include <string_view>

namespace graft {

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// The library's tables are Unicode 10's: characters that Unicode added later stay as they are. Stray bytes stay too.
std::string to_normal_form(std::string_view text, NormalForm form);

}  // namespace graft
