"""Speed of encoding against the reference library on one thread, same texts, same ids. Argument: the tokenize_tool program.

    python tests/data/tokenizers/speed.py build/cpu/tests/tokenize_tool
"""
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import reference_tokenizers
from parity_test import SMOLLM2, smollm2_in_tokenizers
from texts import shared_texts

tool = Path(sys.argv[1]).resolve()


def measure(name, model, tokenizer, texts):
    size = sum(len(text.encode()) for text in texts)
    best = 1e30
    for _ in range(5):
        start = time.perf_counter()
        count = sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)
        best = min(best, time.perf_counter() - start)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    ours = json.loads(subprocess.run([tool, model, "--speed"], input=lines.encode(), capture_output=True, check=True).stdout)
    assert ours["ids"] == count, (ours, count)
    theirs = size / best / 1e6
    print(f"{name:22} {size / 1e6:6.2f} MB  graft {ours['mb_per_s']:7.1f} MB/s   tokenizers {theirs:6.1f} MB/s   ratio {ours['mb_per_s'] / theirs:5.2f}")


documents = [text for text in shared_texts() if text]
rows = [line for text in documents for line in text.splitlines() if line][:40000]
if SMOLLM2:
    tokenizer, _ = smollm2_in_tokenizers()
    measure("SmolLM2, rows", SMOLLM2[0], tokenizer, rows)
    measure("SmolLM2, documents", SMOLLM2[0], tokenizer, documents)
with tempfile.TemporaryDirectory() as folder:
    trained = {}
    for name in ("gpt2_byte_level", "qwen2_nfc", "llama3_ignore_merges", "gpt4o", "deepseek3", "exaone_like"):
        tokenizer = reference_tokenizers.make(folder, name, *reference_tokenizers.shapes()[name], trained)
        measure(name + ", rows", Path(folder) / name, tokenizer, rows)
