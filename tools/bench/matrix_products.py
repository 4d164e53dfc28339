"""The products of one training step of SmolLM2-135M's shape by torch.mm in bfloat16, and nothing else: what is left to win over the rest of a step.

    matrix_products.py TOKENS THREADS [ROUNDS]

Each linear layer forward and its input's gradient, the head over all tokens the same: 4 FLOPs a parameter and token, as LoRA needs. Prints one line of JSON: {"seconds", "gflop_per_s"}.
"""
import json
import statistics
import sys
import time

import torch

LAYERS, HIDDEN, KEYS, WIDTH, VOCABULARY = 30, 576, 192, 1536, 49152
SHAPES = [(HIDDEN, HIDDEN), (KEYS, HIDDEN), (KEYS, HIDDEN), (HIDDEN, HIDDEN), (WIDTH, HIDDEN), (WIDTH, HIDDEN), (HIDDEN, WIDTH)]   # [outputs, inputs]


def main() -> None:
    tokens, threads, rounds = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 3
    torch.set_num_threads(threads)
    random = lambda rows, columns: torch.randn(rows, columns, dtype=torch.bfloat16)
    weights = [[random(*shape) for shape in SHAPES] for _ in range(LAYERS)] + [[random(VOCABULARY, HIDDEN)]]
    inputs = {columns: random(tokens, columns) for columns in (HIDDEN, WIDTH)}
    gradients = {rows: random(tokens, rows) for rows in (HIDDEN, KEYS, WIDTH, VOCABULARY)}
    seconds = []
    with torch.no_grad():
        for _ in range(rounds + 1):   # the first one warms up
            begin = time.perf_counter()
            for layer in weights:
                for weight in layer:
                    torch.mm(inputs[weight.shape[1]], weight.t())
                    torch.mm(gradients[weight.shape[0]], weight)
            seconds.append(time.perf_counter() - begin)
    middle = statistics.median(seconds[1:])
    parameters = sum(weight.numel() for layer in weights for weight in layer)
    print(json.dumps({"seconds": middle, "gflop_per_s": 4 * parameters * tokens / middle / 1e9}))


if __name__ == "__main__":
    main()
