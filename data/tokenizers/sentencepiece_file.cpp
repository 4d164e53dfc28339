// A sentencepiece .model file -> TokenizerParts. It is a protobuf message (sentencepiece_model.proto); the few fields that matter are
// read here, because protobuf's headers clash with those that LibTorch brings.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>

#include "data/tokenizers/byte_tokens.h"
#include "data/tokenizers/tokenizer_sources.h"
#include "data/tokenizers/utf8.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

enum PieceType : uint64_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
enum ModelType : uint64_t { kUnigram = 1, kBpe = 2 };

// One message: its fields one after the other.
class Message {
 public:
  Message(std::string_view bytes, const std::string& origin) : bytes_(bytes), origin_(origin) {}

  struct Field {
    uint64_t number = 0;
    uint64_t value = 0;      // of numbers (floats: their bits)
    std::string_view bytes;  // of texts and messages
  };
  std::optional<Field> next() {
    if (position_ == bytes_.size()) return std::nullopt;
    const uint64_t tag = varint();
    Field field{.number = tag >> 3};
    switch (tag & 7) {
      case 0: field.value = varint(); break;
      case 1: std::memcpy(&field.value, take(8).data(), 8); break;
      case 2: field.bytes = take(varint()); break;
      case 5: std::memcpy(&field.value, take(4).data(), 4); break;
      default: broken();
    }
    return field;
  }

 private:
  [[noreturn]] void broken() const {
    fail("tokenizers", "expected a sentencepiece model, got bytes that are none at offset {} ({}) — is the file whole?", position_, origin_);
  }
  std::string_view take(uint64_t count) {
    if (count > bytes_.size() - position_) broken();
    position_ += count;
    return bytes_.substr(position_ - count, count);
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if ((byte & 0x80) == 0) return value;
    }
    broken();
  }

  std::string_view bytes_;
  const std::string& origin_;
  size_t position_ = 0;
};

struct Piece {
  std::string text;
  float score = 0;
  uint64_t type = kNormal;
};

struct Model {
  std::vector<Piece> pieces;
  uint64_t type = kUnigram;
  bool byte_fallback = false;
  int64_t bos = 1, eos = 2, pad = -1;
  SentencepieceStep step{.remove_extra_white_space = true};  // the library's defaults
  std::string charsmap;
};

Model read_model(std::string_view file, const std::string& origin) {
  Model model;
  const auto read_piece = [&](std::string_view bytes) {
    Piece piece;
    for (Message message(bytes, origin); const auto field = message.next();) {
      if (field->number == 1) piece.text = field->bytes;
      if (field->number == 2) piece.score = std::bit_cast<float>(static_cast<uint32_t>(field->value));
      if (field->number == 3) piece.type = field->value;
    }
    model.pieces.push_back(std::move(piece));
  };
  const auto read_trainer = [&](std::string_view bytes) {
    for (Message message(bytes, origin); const auto field = message.next();) {
      if (field->number == 3) model.type = field->value;
      if (field->number == 24) model.step.space_is_suffix = field->value != 0;
      if (field->number == 35) model.byte_fallback = field->value != 0;
      if (field->number == 41) model.bos = static_cast<int32_t>(field->value);
      if (field->number == 42) model.eos = static_cast<int32_t>(field->value);
      if (field->number == 43) model.pad = static_cast<int32_t>(field->value);
    }
  };
  const auto read_normalizer = [&](std::string_view bytes) {
    for (Message message(bytes, origin); const auto field = message.next();) {
      if (field->number == 2) model.charsmap = field->bytes;
      if (field->number == 3) model.step.add_space_before = field->value != 0;
      if (field->number == 4) model.step.remove_extra_white_space = field->value != 0;
      if (field->number == 5) model.step.escape_white_space = field->value != 0;
    }
  };
  for (Message message(file, origin); const auto field = message.next();) {
    if (field->number == 1) read_piece(field->bytes);
    if (field->number == 2) read_trainer(field->bytes);
    if (field->number == 3) read_normalizer(field->bytes);
  }
  if (model.pieces.empty()) fail("tokenizers", "expected pieces in a sentencepiece model, got none ({}) — is the file whole?", origin);
  if (model.type != kUnigram && model.type != kBpe) {
    fail("tokenizers", "expected a sentencepiece model of type unigram (1) or bpe (2), got {} ({}) — this kind is not supported", model.type, origin);
  }
  return model;
}

}  // namespace

TokenizerParts read_sentencepiece_model(std::string_view file, const std::string& origin, bool space_at_start_only) {
  Model model = read_model(file, origin);
  TokenizerParts parts;
  parts.origin = origin;
  parts.model = model.type == kBpe ? TokenModel::kSymbolBpe : TokenModel::kUnigram;
  parts.byte_fallback = model.byte_fallback;
  parts.fuse_unknown = true;
  parts.single_precision = true;
  parts.decoding_drops_first_space = model.step.add_space_before && !model.step.space_is_suffix;
  parts.least_score = std::numeric_limits<float>::max();
  const bool bpe = model.type == kBpe;
  for (size_t i = 0; i < model.pieces.size(); ++i) {
    Piece& piece = model.pieces[i];
    const auto id = static_cast<int32_t>(i);
    if (piece.text.empty() || to_valid_utf8(piece.text) != piece.text) {
      fail("tokenizers", "expected pieces of UTF-8 text, got {} for piece {} ({}) — is the file broken?", piece.text.empty() ? "none" : "other bytes", i, origin);
    }
    if (piece.type == kUnused && bpe) fail("tokenizers", "expected no unused pieces in a sentencepiece BPE, got '{}' ({}) — this model is not supported", piece.text, origin);
    if (piece.type == kUnknown) {
      if (!parts.unknown_token.empty()) fail("tokenizers", "expected one unknown piece, got '{}' and '{}' ({}) — is the file broken?", parts.unknown_token, piece.text, origin);
      parts.unknown_token = piece.text;
    }
    if (piece.type == kControl) parts.added_tokens.push_back({.id = id, .content = piece.text, .special = true});
    if (piece.type == kUserDefined) {
      model.step.kept.push_back(piece.text);
      model.step.kept_begins.set(static_cast<unsigned char>(piece.text[0]));
      // A BPE takes them as they stand in the normalised text; a unigram model by their score.
      if (bpe) parts.added_tokens.push_back({.id = id, .content = piece.text, .normalized = true});
    }
    if (piece.type == kNormal) parts.least_score = std::min(parts.least_score, static_cast<double>(piece.score));
    parts.scores.push_back(piece.score);
    parts.unmatched.push_back(piece.type != kNormal && !(piece.type == kUserDefined && !bpe));
    parts.always_taken.push_back(piece.type == kUserDefined);
    parts.vocabulary.emplace_back(std::move(piece.text), id);
  }
  if (parts.unknown_token.empty()) fail("tokenizers", "expected an unknown piece, got none ({}) — is the file whole?", origin);
  const std::pair<const char*, int64_t> named[] = {{"bos_token", model.bos}, {"eos_token", model.eos}, {"pad_token", model.pad}};
  for (const auto& [name, id] : named) {
    if (id >= 0 && id < static_cast<int64_t>(parts.vocabulary.size()) && model.pieces[static_cast<size_t>(id)].type == kControl) parts.named.emplace_back(name, parts.vocabulary[static_cast<size_t>(id)].first);
  }
  parts.named.emplace_back("unk_token", parts.unknown_token);
  if (space_at_start_only && model.step.add_space_before && model.step.escape_white_space && !model.step.space_is_suffix) {
    model.step.add_space_before = model.step.escape_white_space = false;
    parts.split_rules.push_back({.kind = SplitRule::Kind::kMetaspace, .add_prefix_space = true, .only_at_start = true, .at_spaces = false});
  }
  std::sort(model.step.kept.begin(), model.step.kept.end(), [](const std::string& a, const std::string& b) { return a.size() > b.size(); });
  if (!model.charsmap.empty()) model.step.map = std::make_shared<Charsmap>(std::move(model.charsmap));
  parts.normalizer = Normalizer(std::move(model.step));
  return parts;
}

}  // namespace graft
