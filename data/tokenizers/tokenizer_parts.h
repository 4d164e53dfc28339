// What a tokenizer is made of, whatever file it comes from: readers fill it, and make_tokenizer makes the tokenizer.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "data/tokenizers/added_tokens.h"
#include "data/tokenizers/normalizer.h"
#include "data/tokenizers/pre_tokenizer.h"
#include "data/tokenizers/tokenizer.h"

namespace graft {

enum class TokenModel {
  kByteLevelBpe,  // pieces as bytes, joined by merges (GPT-2, tiktoken)
  kSymbolBpe,     // pieces as characters, joined by merges (sentencepiece's BPE)
  kUnigram,       // pieces cut where the sum of the scores is largest
};

struct TokenizerParts {
  std::string origin;                                        // the file, for messages
  TokenModel model = TokenModel::kByteLevelBpe;
  std::vector<std::pair<std::string, int32_t>> vocabulary;   // byte-level: spelled in the byte alphabet; ids may have holes
  std::vector<AddedToken> added_tokens;
  Normalizer normalizer;
  std::vector<SplitRule> split_rules;
  std::vector<int32_t> before, after;                        // ids that add_special puts around the text
  std::vector<std::pair<std::string, std::string>> named;    // "eos_token" and the like, where no config says otherwise
  bool add_bos = false, add_eos = false;                     // around the text too, once it is known which tokens they are

  // BPE
  std::vector<std::pair<std::string, std::string>> merges;   // in order of rank
  std::string unknown_token;                                 // for what has no token; empty: it is left out
  bool fuse_unknown = false;                                 // one for several in a row
  bool ignore_merges = false;                                // a piece that is a token is that token

  // Sentencepiece's BPE and unigram
  std::vector<double> scores;                                // by place in `vocabulary`; of a BPE without merges: neighbours whose text is
                                                             // a token are joined, the best score first
  std::vector<bool> unmatched;                               // by place in `vocabulary`, or empty: tokens that no text leads to
  double least_score = 0;                                    // unigram: of ordinary tokens; text without a token scores 10 below the least
  std::vector<bool> always_taken;                            // unigram, by place in `vocabulary`, or empty: user-defined tokens
  bool byte_fallback = false;                                // what has no token becomes the tokens <0x00> to <0xFF> of its bytes
  bool single_precision = false;                             // unigram: sums as the sentencepiece library makes them, in float
  bool lead_byte_characters = false;                         // characters as long as their first byte says: llama.cpp
  bool decoding_drops_first_space = false;                   // which encoding had put there
};

// UserError when the parts contradict each other (a merge of unknown tokens, two tokens of one id, ...). bos_id and the like stay unset.
std::shared_ptr<Tokenizer> make_tokenizer(TokenizerParts parts);

// From a parsed tokenizer.json alone; `origin` is its path.
TokenizerParts read_tokenizer_json(const nlohmann::json& file, const std::string& origin);

}  // namespace graft
