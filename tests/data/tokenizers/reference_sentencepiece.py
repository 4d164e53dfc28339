"""Sentencepiece models of every kind, trained on the shared texts with the library's own trainer, and the same in tokenizers."""
import functools
import io

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers.convert_slow_tokenizer import generate_merges

from texts import WORDS, shared_texts

USER_DEFINED = ["<|turn|>", "▁▁▁▁", "HTTP", "日本"]
# What families do: Llama 2, Mistral, ERNIE, openPangu and ChatGLM (identity, or NMT's NFKC), Gemma (no space in front), T5 (unigram).
LIKE_LLAMA = dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True)
KINDS = {
    "bpe_llama": LIKE_LLAMA,
    "bpe_gemma": LIKE_LLAMA | dict(add_dummy_prefix=False, user_defined_symbols=USER_DEFINED),
    "bpe_chatglm": LIKE_LLAMA | dict(normalization_rule_name="nmt_nfkc", remove_extra_whitespaces=True),
    "bpe_without_bytes": dict(model_type="bpe", user_defined_symbols=USER_DEFINED),
    "bpe_across_words": LIKE_LLAMA | dict(split_by_whitespace=False),
    "unigram_t5": dict(model_type="unigram"),
    "unigram_bytes": dict(model_type="unigram", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, user_defined_symbols=USER_DEFINED),
    "unigram_ascii": dict(model_type="unigram", byte_fallback=True, remove_extra_whitespaces=False, user_defined_symbols=["<|turn|>", "HTTP", "▁▁▁▁"]),
    "unigram_suffix": dict(model_type="unigram", treat_whitespace_as_suffix=True, normalization_rule_name="nfkc_cf"),
}


@functools.cache
def corpus():
    lines = [line for text in shared_texts()[:30] for line in text[:40_000].splitlines() if line.strip()]
    return lines + [" ".join(WORDS), "".join(WORDS)] * 10


@functools.cache
def model(kind, vocabulary=3000):
    """The bytes of a .model file."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(corpus()), model_writer=out, vocab_size=vocabulary, hard_vocab_limit=False, character_coverage=0.998, num_threads=1,
                                             max_sentence_length=20_000, minloglevel=2, **KINDS[kind])
    return out.getvalue()


def library(kind):
    return sentencepiece.SentencePieceProcessor(model_proto=model(kind))


def in_tokenizers(kind, form, vocabulary=3000):
    """As files of the hub have it: form "prepend" (Llama 2, legacy), "first" (Llama, not legacy), "gemma", "words" (T5, XLM-R)."""
    proto = sentencepiece_model_pb2.ModelProto.FromString(model(kind, vocabulary))
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    fallback = proto.trainer_spec.byte_fallback
    if proto.trainer_spec.model_type == 1:
        tokenizer = Tokenizer(models.Unigram(pieces, proto.trainer_spec.unk_id, byte_fallback=fallback))
    else:
        ids = {piece: i for i, (piece, _) in enumerate(pieces)}
        tokenizer = Tokenizer(models.BPE(ids, generate_merges(ids, pieces), unk_token="<unk>", fuse_unk=True, byte_fallback=fallback))
    replace = normalizers.Replace(" ", "▁")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if form == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
    elif form == "first":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    elif form == "gemma":
        tokenizer.normalizer = replace
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    elif form == "words":
        charsmap = proto.normalizer_spec.precompiled_charsmap
        tokenizer.normalizer = normalizers.Sequence(([normalizers.Precompiled(charsmap)] if charsmap else [normalizers.NFKC()]) +
                                                    [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "▁")])
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")])
    tokenizer.decoder = decoders.Sequence(steps if form == "gemma" else steps + [decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ("<s>", "</s>")])
    tokenizer.add_tokens([AddedToken("<left>", lstrip=True, normalized=False), AddedToken("<right>", rstrip=True, normalized=False), AddedToken("word", single_word=True, normalized=False),
                          AddedToken("学生", normalized=True)])
    return tokenizer
