"""Adapters between graft and PEFT, both ways, on a tiny Llama.

usage: peft_golden.py OURS THEIRS OPTIONS
Loads graft's adapter from the folder OURS with PEFT and prints {module: [r, scaling, sum(A), sum(B)]} on one line; then saves
PEFT's own adapter with LoraConfig(**OPTIONS) (JSON) to the folder THEIRS and prints the same of it on the last line.
"""
import json
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM


def base_model():
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                                        num_key_value_heads=2, tie_word_embeddings=True))


def print_factors(model):
    found = {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            found[name.removeprefix("base_model.model.")] = [
                module.r["default"], module.scaling["default"], module.lora_A["default"].weight.double().sum().item(),
                module.lora_B["default"].weight.double().sum().item()]
    print(json.dumps(found))


torch.manual_seed(0)
print_factors(PeftModel.from_pretrained(base_model(), sys.argv[1]))
theirs = get_peft_model(base_model(), LoraConfig(task_type="CAUSAL_LM", **json.loads(sys.argv[3])))
for name, parameter in theirs.named_parameters():
    if "lora_B" in name:
        torch.nn.init.normal_(parameter)
theirs.save_pretrained(sys.argv[2])
print_factors(theirs)
