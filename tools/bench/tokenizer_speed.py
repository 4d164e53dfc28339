"""Speed of graft's tokenizers against the Hugging Face library tokenizers on one thread: the same texts, the same ids.

    .deps/python/bin/python tools/bench/tokenizer_speed.py build/release/tests/tokenize_tool [--rounds 5]

tokenizers is called by encode_batch_fast, with its threads switched off. Rounds of the two are interleaved. A round is the user CPU time of encoding all texts once; printed are medians with their ranges. The vocabularies are trained on the shared texts (32,000 tokens, not more than the texts give), but for SmolLM2's own.
"""
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1", HF_HUB_OFFLINE="1")
ROOT = Path(__file__).resolve().parents[2]
TOOL = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else ROOT / "build/release/tests/tokenize_tool"
sys.path.insert(0, str(ROOT / "tests/data/tokenizers"))
sys.argv = [sys.argv[0], str(TOOL), *sys.argv[2:]]
arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("tool")
arguments.add_argument("--rounds", type=int, default=5)
arguments.add_argument("--only", default="")
options = arguments.parse_args()

import parity_test
import reference_sentencepiece
import reference_tokenizers
from texts import shared_texts


def user_seconds():
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def measure(name, model, tokenizer, texts):
    size = sum(len(text.encode()) for text in texts)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    ours, theirs = [], []
    for _ in range(options.rounds):
        # Two encodings a process: the second has the program's caches filled, as the library's are from the second round on.
        result = json.loads(subprocess.run([TOOL, model, "--speed", "2"], input=lines, capture_output=True, check=True).stdout)
        ours.append(result["seconds"][1])
        for attempt in range(2):
            start = user_seconds()
            encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)  # its fastest call: one for all, without offsets
            taken = user_seconds() - start
            count = sum(len(encoding) for encoding in encoded)
        theirs.append(taken)
        assert result["ids"] == count, (name, result["ids"], count)
    speeds = [[size / taken / 1e6 for taken in round_] for round_ in (ours, theirs)]
    shown = [f"{statistics.median(speed):6.1f} ({min(speed):.1f} to {max(speed):.1f})" for speed in speeds]
    print(f"| {name} | {size / 1e6:.2f} | {shown[0]} | {shown[1]} | {statistics.median(speeds[0]) / statistics.median(speeds[1]):.2f} |", flush=True)


documents = [text for text in shared_texts() if text]
rows = [line for text in documents for line in text.splitlines() if line][:40_000]
print("| tokenizer, texts | MB | graft, MB/s | tokenizers, MB/s | ratio |\n|---|---|---|---|---|")
with tempfile.TemporaryDirectory() as folder:
    trained = {}
    if parity_test.SMOLLM2 and options.only in "SmolLM2":
        tokenizer, _ = parity_test.smollm2_in_tokenizers()
        measure("byte-level BPE (SmolLM2), rows", parity_test.SMOLLM2[0], tokenizer, rows)
        measure("byte-level BPE (SmolLM2), documents", parity_test.SMOLLM2[0], tokenizer, documents)
    for shape in ("qwen2_nfc", "llama3_ignore_merges", "gpt4o", "deepseek3", "kimi"):
        if options.only not in shape:
            continue
        tokenizer = reference_tokenizers.make(folder, shape, *reference_tokenizers.shapes()[shape], trained)
        measure(f"byte-level BPE ({shape}), rows", Path(folder) / shape, tokenizer, rows)
    for kind, form, name in (("bpe_llama", "prepend", "sentencepiece BPE (as Llama 2)"), ("bpe_llama", "first", "sentencepiece BPE (as Llama, not legacy)"), ("bpe_gemma", "gemma", "sentencepiece BPE (as Gemma)"),
                             ("unigram_t5", "words", "unigram (as T5)"), ("unigram_bytes", "first", "unigram (whole text)")):
        if options.only not in name:
            continue
        directory = Path(folder) / f"{kind}_{form}"
        directory.mkdir()
        tokenizer = reference_sentencepiece.in_tokenizers(kind, form, vocabulary=32_000)
        tokenizer.save(str(directory / "tokenizer.json"))
        measure(name + ", rows", directory, tokenizer, rows)
        measure(name + ", documents", directory, tokenizer, documents)
