// tokenizer.ggml.pre: the name of a pre-tokenizer, which llama.cpp translates into split patterns (llama-vocab.cpp). The first name
// of a kind is the one that an export writes.
#include "data/tokenizers/scanners.h"
#include "data/tokenizers/tokenizer_sources.h"

namespace graft {
namespace {

using Rules = std::vector<SplitRule>;

// The patterns one after the other, then bytes.
Rules splits(std::initializer_list<std::string_view> patterns) {
  Rules rules;
  for (const std::string_view pattern : patterns) rules.push_back({.pattern = std::string(pattern)});
  rules.push_back({.kind = SplitRule::Kind::kByteLevel, .use_regex = false});
  return rules;
}

constexpr std::string_view kDeepseekLlmLetters =
    R"(\s?[)"
    R"(A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}\x{370}-\x{373})"
    R"(\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481})"
    R"(\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA})"
    R"(\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D})"
    R"(\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4})"
    R"(\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC})"
    R"(\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126})"
    R"(\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184})"
    R"(\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B})"
    R"(\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17})"
    R"(\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2})"
    R"(\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943})"
    R"(]+)";
constexpr std::string_view kDeepseekLlmSigns = R"(\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+)";
constexpr std::string_view kDeepseekCjk = R"([\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+)";

std::vector<GgufPre> make() {
  std::vector<GgufPre> all;
  const auto add = [&](std::initializer_list<std::string_view> names, const Rules& rules, bool ignore_merges = false, bool add_bos = false) {
    for (const std::string_view name : names) all.push_back({name, rules, ignore_merges, add_bos});
  };
  // The models' own files have Digits: the same but for 13 digits that Unicode 17 added.
  const Rules digits_then_gpt2 = splits({kNumberPattern, kGpt2Pattern});
  add({"gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4"}, splits({kGpt2Pattern}));
  add({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"}, digits_then_gpt2);
  add({"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"}, splits({kQwen2GgufPattern}));
  add({"qwen35"}, splits({kQwen35GgufPattern}));
  add({"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"}, splits({kLlama3GgufPattern}), true, true);
  add({"glm4", "glm5"}, splits({kLlama3GgufPattern}), true);
  add({"smaug-bpe", "dbrx", "chatglm-bpe"}, splits({kLlama3GgufPattern}));
  add({"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"}, splits({kGpt4oGgufPattern}));
  add({"tekken"}, splits({kTekkenGgufPattern}), true, true);
  add({"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"}, splits({kNumbers3Pattern, kCjkPattern, kDeepseek3Pattern}));
  add({"kimi-k2"}, splits({kKimiGgufPattern}));
  add({"bloom", "gpt3-finnish", "poro-chat"}, splits({kBloomPattern}));
  add({"deepseek-coder"}, splits({R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", kDeepseekCjk, kNumberPattern}));
  add({"deepseek-llm"}, splits({R"([\r\n])", kDeepseekLlmLetters, kDeepseekLlmSigns, R"(\s+$)", kDeepseekCjk, R"(\p{N}+)"}));
  return all;
}

}  // namespace

const std::vector<GgufPre>& known_gguf_pre() {
  static const std::vector<GgufPre> all = make();
  return all;
}

}  // namespace graft
