// \p{...} as the reference library knows it, written for the inside of a PCRE2 character class.
#pragma once
#include <string>
#include <string_view>

namespace graft {

// "\p{L}" plus the ranges that this PCRE2's Unicode version lacks, or all ranges where it has too many. Known: L N M P S Lu Lt
// Ll Lm Lo Nd Han; anything else is a UserError that lists these. The first use of each takes about 30 ms.
std::string property_for_class(std::string_view property);
// The 25 code points of \s (PCRE2's own \s has one more), or all others.
std::string white_space_for_class(bool negated);

}  // namespace graft
