#!/usr/bin/env python3
"""`graft verify --engine transformers`: reads a Hugging Face directory or a GGUF in float32, with a PEFT adapter if there is
one (see reader_protocol.py)."""
import os

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from reader_protocol import greedy, serve, write_logits

model = tokenizer = None


def source_of(path: str) -> tuple[str, dict]:
    """(folder, extra arguments of from_pretrained)"""
    if path.endswith(".gguf"):
        return os.path.dirname(os.path.abspath(path)), {"gguf_file": os.path.basename(path)}
    return path, {}


def load(request: dict) -> dict:
    global model, tokenizer
    torch.set_num_threads(request.get("threads", 2))
    folder, extra = source_of(request["model"])
    # trust_remote_code stays off: code that comes with a model is never run.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True, **extra)
    tokenizer = (folder, extra)
    reader = f"transformers {transformers.__version__}"
    if request.get("adapter"):
        import peft
        model = peft.PeftModel.from_pretrained(model, request["adapter"])
        reader += f", peft {peft.__version__}"
    model.eval()
    ends = next((ends for ends in (model.generation_config.eos_token_id, model.config.eos_token_id) if ends is not None), [])
    stop = ends if isinstance(ends, list) else [ends]
    return {"reader": reader, "vocabulary": model.config.vocab_size, "stop": stop, "end": stop[0] if stop else None}


@torch.inference_mode()
def logits(request: dict) -> dict:
    found = model(input_ids=torch.tensor([request["ids"]]), use_cache=False).logits[0]
    return write_logits(found.float().numpy(), request["out"])


@torch.inference_mode()
def generate(request: dict) -> dict:
    cache = transformers.DynamicCache(config=model.config)

    def step(ids: list[int]):
        return model(input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True).logits[0, -1].float().numpy()

    return greedy(step(request["ids"]), lambda token: step([token]), request["max_tokens"], request["stop"])


def tokenize(request: dict) -> dict:
    global tokenizer
    if isinstance(tokenizer, tuple):     # a GGUF's tokenizer takes seconds to convert: only when it is asked for
        folder, extra = tokenizer
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, **extra)
    return {"ids": tokenizer(request["text"], add_special_tokens=False)["input_ids"]}


if __name__ == "__main__":
    serve({"load": load, "logits": logits, "generate": generate, "tokenize": tokenize})
