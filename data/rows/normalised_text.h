// What makes two texts "the same": lower case, NFKC, words and symbols separated by one space. Punctuation does not count, so
// "Where is my card?" and "where is my card" are one text ("x + 1" and "x * 1" are two).
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

// Words: runs of letters, digits, marks and underscores; each CJK ideograph or kana; each symbol (Unicode S*, and * / % # @ &).
// A text without any word (only punctuation) stays as it is after NFKC. text: valid UTF-8.
std::string normalised_text(std::string_view text);

// Sorted distinct hashes of the word 5-grams of a normalised text; of the whole text when it has fewer than 5 words.
std::vector<uint64_t> word_shingles(std::string_view normalised);

// |a and b| / |a or b| of two sorted sets.
double jaccard(const std::vector<uint64_t>& a, const std::vector<uint64_t>& b);

}  // namespace graft
