#!/usr/bin/env python3
"""The peer: LoRA training with transformers + PEFT, as its users write it, on the token ids it is given.

  peft_peer.py JOB.json
JOB: {"model": DIR or GGUF, "dtype": "bfloat16"|"float32", "threads": N, "rank": R, "alpha": A, "learning_rate": L,
      "checkpointing": bool, "device": "cuda:0"? (else the CPU), "steps": [[{"ids": [...], "labels": [...]}, ...rows of the batch...], ...],
      "adapter": DIR?  start from this PEFT adapter instead of a fresh one,
      "save": DIR?     save the adapter there at the end, "clip": MAX_NORM?}
A batch of several rows is padded to its longest, as transformers' collators do. Prints one JSON line when it starts to load
and after every step: {"step", "loss", "tokens", "seconds", on a GPU also "device_gib", the tensors' peak}; whoever reads the lines has the times. Pinned: tests/requirements.txt.
"""
import json
import os
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"


def load(job: dict):
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM
    torch.set_num_threads(job["threads"])
    path, extra = job["model"], {}
    if path.endswith(".gguf"):
        path, extra = os.path.dirname(os.path.abspath(path)), {"gguf_file": os.path.basename(path)}
    model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, job["dtype"]), attn_implementation="sdpa", **extra)
    if job["checkpointing"]:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    if job.get("adapter"):
        model = PeftModel.from_pretrained(model, job["adapter"], is_trainable=True)
    else:
        model = get_peft_model(model, LoraConfig(r=job["rank"], lora_alpha=job["alpha"], target_modules="all-linear", task_type="CAUSAL_LM"))
    return model.to(job.get("device", "cpu")).train()


def padded(rows: list[dict], pad: int):
    import torch
    length = max(len(row["ids"]) for row in rows)
    fill = lambda values, value: values + [value] * (length - len(values))
    return {"input_ids": torch.tensor([fill(row["ids"], pad) for row in rows]),
            "labels": torch.tensor([fill(row["labels"], -100) for row in rows]),
            "attention_mask": torch.tensor([fill([1] * len(row["ids"]), 0) for row in rows])}


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    model = load(job)
    import torch
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=job["learning_rate"], weight_decay=0.0)
    for step, rows in enumerate(job["steps"], 1):
        started = time.monotonic()
        loss = model(**{name: values.to(model.device) for name, values in padded(rows, pad=0).items()}).loss
        loss.backward()
        if job.get("clip"):
            torch.nn.utils.clip_grad_norm_(trainable, job["clip"])
        optimizer.step()
        optimizer.zero_grad()
        line = {"step": step, "loss": loss.item(), "tokens": sum(len(row["ids"]) for row in rows), "seconds": time.monotonic() - started}
        if model.device.type == "cuda":
            line["device_gib"] = torch.cuda.max_memory_allocated() / 2**30
        print(json.dumps(line), flush=True)
    if job.get("save"):
        model.save_pretrained(job["save"])


if __name__ == "__main__":
    main()
