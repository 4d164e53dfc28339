"""A run folder as `graft train` leaves it, made up: enough of everything that report.html shows, with hostile text in every field that a
row, a file or a model could fill."""
import json
import math
import random

HOSTILE = "<script>fetch('http://evil.example/')</script><img src=x onerror=alert(1)>\"'&\x07\u2028"
QUEUES = ["account_access", "billing", "complaints", "order_changes", "privacy", "product_question", "refunds", "returns", "shipping",
          "subscription", "technical_support", "warranty"]


def metrics(steps, random_numbers):
    lines = []
    for step in range(1, steps + 1):
        warmup = min(1, step / (0.03 * steps))
        line = {
            "step": step,
            "loss": 0.12 + 2.9 * math.exp(-step / (steps * 0.12)) + random_numbers.uniform(0, 0.18),
            "learning_rate": 1.32e-3 * warmup * 0.5 * (1 + math.cos(math.pi * step / steps)),
            "gradient_norm": 0.6 + 3 * math.exp(-step / 20) + random_numbers.uniform(0, 0.3),
            "tokens": 1695, "supervised_tokens": 54,
            "tokens_per_s": 803 + random_numbers.gauss(0, 21), "seconds": 2.11,
        }
        if step % 25 == 0:
            line["validation_loss"] = 0.2 + 2.2 * math.exp(-step / (steps * 0.13))
        lines.append(line)
    return lines


def certificate(name, form, reader, version, kl, threshold, exported, serve, **more):
    return {"artifact": name, "format": form, "reader": reader, "reader_version": version, "rows": 314, "supervised_tokens": 10412,
            "mean_kl": kl, "p99_kl": kl * 14, "mean_kl_all": kl * 1.2, "top1_agreement": max(0.11, 1 - 6 * kl),
            "task": {"trained": 0.914, "exported": exported, "base": 0.076}, "threshold": threshold, "passed": kl <= threshold,
            "sha256": {"artifact": "3f" * 32, "base": "a7" * 32, "prompts": "09" * 32}, "serve": serve, **more}


def evaluation(random_numbers, hostile):
    matrix = []
    for i in range(12):
        row = [0] * 13
        row[i] = random_numbers.randint(22, 27)
        for _ in range(random_numbers.randint(0, 4)):
            row[random_numbers.choice([j for j in range(13) if j != i])] += 1
        matrix.append(row)
    correct, total = sum(matrix[i][i] for i in range(12)), sum(map(sum, matrix))
    return {
        "before": {"accuracy": 0.076, "macro_f1": 0.021, "loss": 4.61, "calibration_error": 0.31, "rows": total},
        "after": {"accuracy": correct / total, "macro_f1": 0.905, "loss": 0.273, "calibration_error": 0.041, "rows": total,
                  "accuracy_interval": [0.879, 0.945]},
        "baselines": [{"name": "TF-IDF + logistic regression", "accuracy": 0.831}],
        "labels": [HOSTILE if hostile and i == 0 else queue for i, queue in enumerate(QUEUES)],
        "confusion": matrix,
        "answers": [{"prompt": "where is my parcel?? ordered 9 days ago " + HOSTILE, "before": "I'm sorry to hear that.", "after": "shipping",
                     "expected": "shipping"},
                    {"prompt": "ROWTEXT charged twice, pls fix", "before": "Ticket", "after": "refunds", "expected": "billing"}],
    }


def plan(hostile):
    tokens = [("<|im_start|>", 0), ("system", 0), ("\n", 0), ("You route support tickets to queues.", 0), ("<|im_end|>", 0), ("\n", 0),
              ("<|im_start|>", 0), ("user", 0), ("\n", 0), ("Ticket: my invoice shows the wrong address", 0), ("<|im_end|>", 0), ("\n", 0),
              ("<|im_start|>", 0), ("assistant", 0), ("\n", 0), ("bill", 1), ("ing", 1), ("<|im_end|>", 1), ("\n", 0)]
    if hostile:
        tokens.append((HOSTILE, 1))
    return {
        "rows": {"train": 1134, "validation": 127, "test": 315}, "tokens": 120204, "supervised_tokens": 3856,
        "length_histogram": [[64, 31], [80, 204], [96, 298], [112, 241], [128, 152], [144, 92], [160, 51], [176, 31], [208, 22], [256, 12]],
        "rows_per_label": {(HOSTILE if hostile and i == 0 else queue): 105 - 2 * i for i, queue in enumerate(QUEUES)},
        "example": {"source": "built-in", "tokens": [{"text": text, "supervised": bool(mask)} for text, mask in tokens]},
        "memory_bytes": 571_000_000,
        "notes": ["device cpu: this program trains on the CPU", "learning rate 1.32e-03 (auto)"],
        "tensors": [{"name": "token_embd.weight", "shape": [49152, 576], "form": "Q8_0", "bytes": 30081024, "adapter_parameters": 0},
                    {"name": "blk.0.attn_q.weight", "shape": [576, 576], "form": "Q4_1", "bytes": 207360, "adapter_parameters": 18432}],
        "memory": {"base": 98_000_000, "adapters": 78_000_000, "activations": 171_000_000, "scratch": 67_000_000, "program": 157_000_000},
        "findings": [{"severity": "warning", "message": "2 near-duplicate pairs within train", "code": "near_duplicate"}],
    }


def manifest():
    file = lambda name, size, byte: {"name": name, "bytes": size, "sha256": byte * 32}
    return {
        "format": 1, "program": {"version": "0.1.0", "build": "5c" * 32, "versions": {"libtorch": "2.11.0"}},
        "base": {"name": "SmolLM2-135M-Instruct.Q4_1.gguf", "family": "llama", "licence": "apache-2.0",
                 "files": [file("SmolLM2-135M-Instruct.Q4_1.gguf", 98_100_000, "a7")]},
        "teacher_licence": None, "tokenizer": {"sha256": "1b" * 32}, "template": {"sha256": "2c" * 32, "date": "2026-11-22"},
        "data": {"train": [file("train.jsonl", 181_204, "d1")], "validation": [], "test": [file("test.jsonl", 45_113, "d2")],
                 "rows_sha256": "e4" * 32},
        "recipe": {"sha256": "f5" * 32},
        "run": {"seed": 0, "threads": 2, "compute": "bfloat16", "device": "cpu", "bit_exact": True, "started": "2026-11-22T08:00:00Z"},
        "machine": {"cpu": "AMD EPYC 9575F 64-Core Processor", "instruction_set": "avx512_bf16", "cores": 2, "memory_bytes": 16_000_000_000,
                    "kernel": "Linux 6.1.0"},
        "seconds": 449.4, "peak_memory_bytes": 602_000_000, "chain": "9e" * 32,
    }


def write(run, examples=False, hostile=False, steps=213, seed=0):
    random_numbers = random.Random(seed)
    (run / "certificates").mkdir(parents=True)
    (run / "recipe.yaml").write_text(
        "model:\n  base: ../../models/SmolLM2-135M-Instruct.Q4_1.gguf\nadapter:\n  rank: 16\ndata:\n  train:\n    - path: train.jsonl\n"
        "      format: labelled\n      prompt: " + json.dumps("Ticket: {text} <script>alert(2)</script>") + "\n"
        f"report:\n  examples: {'true' if examples else 'false'}\n")
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics(steps, random_numbers)))
    documents = {"manifest": manifest(), "plan": plan(hostile), "evaluation": evaluation(random_numbers, hostile)}
    for name, document in documents.items():
        (run / f"{name}.json").write_text(json.dumps(document))
    serve = "llama-server -m exports/model-{}.gguf --jinja"
    certificates = [
        certificate("adapter", "peft", "graft", "0.1.0", 0.0, 0.002, 0.914, "vllm serve BASE --enable-lora --lora-modules graft=adapter"),
        certificate("model-F16.gguf", "gguf:F16", "llama.cpp", "b9371", 3.1e-5, 0.01, 0.914, serve.format("F16")),
        certificate("model-lora.gguf", "gguf-lora", "llama.cpp", "b9371", 2.6e-3, 0.01, 0.911,
                    "llama-server -m SmolLM2-135M-Instruct.Q4_1.gguf --lora exports/model-lora.gguf --jinja"),
        certificate("model-Q4_1.gguf", "gguf:Q4_1", "graft", "0.1.0", 0.95, 0.01, 0.102, serve.format("Q4_1"),
                    note="Merging onto the base's own 4-bit grid erased the fine-tune. Forms that keep it: gguf-lora, gguf:F16, gguf:Q8_0."
                         + (HOSTILE if hostile else "")),
    ]
    for one in certificates:
        (run / "certificates" / (one["artifact"] + ".json")).write_text(json.dumps(one))
