"""Model directories with a tokenizer.json for every pre-tokenizer, trained on the shared texts with the reference library."""
import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from texts import WORDS, shared_texts

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
LOWER, UPPER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "qwen2": CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + TAIL,
    "llama3": CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + TAIL,
    "qwen35": CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + TAIL,
    "gpt4o": rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTIONS}?|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*" + TAIL,
    "tekken": rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*" + TAIL,
    "kimi": "|".join([r"[\p{Han}]+", rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER[:-1]}&&[^\p{{Han}}]]*{LOWER[:-1]}&&[^\p{{Han}}]]+{CONTRACTIONS}?", rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER[:-1]}&&[^\p{{Han}}]]+{LOWER[:-1]}&&[^\p{{Han}}]]*{CONTRACTIONS}?",
                      r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*"]) + TAIL,
    "bloom": r" ?[^(\s|.,!?…。，、।۔،)]+",
    # none of these has a scanner: they go through PCRE2
    "olmo3_like": CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    "exaone_like": CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
    "thousands": r"\d{1,3}(?=(?:\d{3})*(?!\d))|\S+|\s+$|\s",
}
DEEPSEEK = [r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+",
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin▁of▁sentence|>"]


def split(*patterns, behavior="isolated", invert=False):
    steps = [pre_tokenizers.Split(Regex(pattern), behavior, invert) for pattern in patterns]
    return pre_tokenizers.Sequence(steps + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def byte_level(**options):
    return pre_tokenizers.ByteLevel(**{"add_prefix_space": False, "use_regex": True, **options})


def digits(individual):
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=individual), byte_level()])


def shapes():
    """name -> (pre-tokenizer, options)"""
    found = {name: (split(pattern), {}) for name, pattern in PATTERNS.items()}
    found["gpt2_byte_level"] = (byte_level(), {})
    found["smollm"] = (digits(True), {})
    found["digit_runs"] = (digits(False), {})
    found["deepseek3"] = (split(*DEEPSEEK), {"normalizer": normalizers.Sequence([])})
    found["deepseek_coder"] = (pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(p), "isolated") for p in (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+")] +
                                                       [pre_tokenizers.Digits(individual_digits=True), byte_level(use_regex=False)]), {})
    found["qwen2_nfc"] = (split(PATTERNS["qwen2"]), {"normalizer": normalizers.NFC()})
    found["qwen35_nfkc"] = (split(PATTERNS["qwen35"]), {"normalizer": normalizers.Sequence([normalizers.NFKC(), normalizers.NFC()])})
    found["gpt2_nfd"] = (byte_level(), {"normalizer": normalizers.NFD()})
    found["gpt2_nfkd"] = (byte_level(), {"normalizer": normalizers.NFKD()})
    found["llama3_ignore_merges"] = (split(PATTERNS["llama3"]), {"ignore_merges": True, "bos": True})
    found["gpt2_removed_inverted"] = (split(PATTERNS["gpt2"], behavior="removed", invert=True), {})
    found["prefix_space"] = (byte_level(add_prefix_space=True), {})
    found["split_prefix_space"] = (pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"), byte_level(add_prefix_space=True)]), {})
    for behavior in ("removed", "merged_with_previous", "merged_with_next", "contiguous"):
        found["behavior_" + behavior] = (split(r"[aeiou\s]", behavior=behavior), {})
        found["inverted_" + behavior] = (split(r"[aeiou\s]", behavior=behavior, invert=True), {})
    found["string_pattern"] = (pre_tokenizers.Sequence([pre_tokenizers.Split(".", "isolated"), byte_level()]), {})
    found["flagged_tokens"] = (byte_level(), {"normalizer": normalizers.NFC(), "flags": True})
    return found


def make(folder, name, pre_tokenizer, options, merges_of):
    """Writes folder/name/tokenizer.json; returns the library's own tokenizer."""
    if not merges_of:  # the merges need not fit the pre-tokenizer: training once for all is enough
        trained = Tokenizer(models.BPE())
        trained.pre_tokenizer = split(PATTERNS["llama3"])
        corpus = [text[:60_000] for text in shared_texts()[:30]] + [" ".join(WORDS) + " " + "".join(WORDS)] * 20
        trained.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=6000, special_tokens=SPECIALS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
        merges_of["model"] = json.loads(trained.to_str())["model"]
    model = dict(merges_of["model"], ignore_merges=options.get("ignore_merges", False))
    if options.get("ignore_merges"):  # words that no merges lead to
        size = len(model["vocab"])
        model["vocab"] = dict(model["vocab"], **{word: size + i for i, word in enumerate(["Ġzyzzyva", "qqqq", "ĠResumÃ©"])})
    tokenizer = Tokenizer.from_str(json.dumps({"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
                                               "post_processor": None, "decoder": None, "model": model}))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if "normalizer" in options:
        tokenizer.normalizer = options["normalizer"]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    if options.get("flags"):
        tokenizer.add_tokens([AddedToken("<left>", lstrip=True, normalized=False), AddedToken("<right>", rstrip=True, normalized=False), AddedToken("<both>", lstrip=True, rstrip=True, normalized=True),
                              AddedToken("word", single_word=True, normalized=False), AddedToken("wordy", normalized=True), AddedToken("é", normalized=True), AddedToken("  ", normalized=False),
                              AddedToken("<|im", normalized=False), AddedToken("日本", normalized=True, lstrip=True)])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    if options.get("bos"):
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False),
                                                        processors.TemplateProcessing(single="<|endoftext|> $A <|im_end|>", pair="<|endoftext|> $A $B", special_tokens=[("<|endoftext|>", 0), ("<|im_end|>", 2)])])
    target = Path(folder) / name
    target.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(target / "tokenizer.json"))
    return tokenizer
