#pragma once
#include <string_view>
#include <vector>

namespace graft::jinja {

struct SpecialCase {
  char32_t code_point;
  std::string_view upper, title;  // UTF-8
};

const std::vector<SpecialCase>& special_cases();  // sorted by code point

}  // namespace graft::jinja
