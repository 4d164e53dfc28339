#!/usr/bin/env python3
"""Accuracy of exported GGUF files on labelled rows, by free greedy decoding in llama.cpp. Nothing of graft takes part.

  tools/bench/served_accuracy --data recipes/data/support_tickets/test.jsonl --text text --label queue \\
      --system "Name the queue of this support ticket." runs/*/exports/*.Q8_0.gguf
Each file is asked as a server asks it: its own template (rendered by jinja2), its own tokenizer and its own end tokens. An answer counts when it
ends and, trimmed, is the label. With several files (seeds) the last line is their mean with its 95 % interval (Student's t).
Needs tools/setup --tests.
"""
import argparse
import json
import math
import pathlib
import statistics
import sys

import gguf
from jinja2.sandbox import ImmutableSandboxedEnvironment

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "engines"))
from llama_cpp import LlamaCpp, version  # noqa: E402
from reader_protocol import greedy  # noqa: E402

STUDENT_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}   # 97.5 %, by degrees of freedom
LONGEST_ANSWER = 24


def template_of(file: str):
    source = bytes(gguf.GGUFReader(file).fields["tokenizer.chat_template"].parts[-1]).decode()
    return ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(source)


def wilson(correct: int, rows: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    z, share = 1.96, correct / rows
    middle, half = share + z * z / (2 * rows), z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return (middle - half) / (1 + z * z / rows), (middle + half) / (1 + z * z / rows)


def correct_answers(file: str, rows: list[dict], arguments) -> int:
    template, engine = template_of(file), LlamaCpp(file, threads=arguments.threads)
    stop, _ = engine.end_tokens()
    correct = 0
    for row in rows:
        messages = [{"role": "system", "content": arguments.system}] if arguments.system else []
        messages.append({"role": "user", "content": row[arguments.text]})
        engine.reset()
        first = engine.append(engine.tokenize(template.render(messages=messages, add_generation_prompt=True)), all_rows=False)[-1]
        answer = greedy(first, lambda token: engine.append([token], all_rows=False)[-1], LONGEST_ANSWER, stop)
        correct += answer["stopped"] and engine.detokenize(answer["ids"]).strip() == row[arguments.label]
    engine.close()
    return correct


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--text", default="text")
    parser.add_argument("--label", default="label")
    parser.add_argument("--system", default="")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in pathlib.Path(arguments.data).read_text(encoding="utf-8").splitlines()]
    print(f"{len(rows)} rows, llama.cpp (xllamacpp {version()})")
    shares = []
    for file in arguments.files:
        correct = correct_answers(file, rows, arguments)
        shares.append(correct / len(rows))
        low, high = wilson(correct, len(rows))
        print(f"{100 * shares[-1]:5.1f} % [{100 * low:.1f}, {100 * high:.1f}]  {file}", flush=True)
    if len(shares) > 1:
        half = STUDENT_T[len(shares) - 1] * statistics.stdev(shares) / math.sqrt(len(shares)) if len(shares) <= 10 else float("nan")
        print(f"{100 * statistics.mean(shares):5.1f} % +- {100 * half:.1f}  mean of {len(shares)}")


if __name__ == "__main__":
    main()
