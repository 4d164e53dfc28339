"""A GGUF LoRA from a PEFT folder, written from the format's description: shares nothing with graft's writer, so that the
two can be compared. Below "conformance" stands the same for models."""
import json
import pathlib
import sys

import gguf
from safetensors.numpy import load_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "conformance"))
from gguf_golden import gguf_name, interleave_rope_rows  # noqa: E402


def write_gguf_lora(config: dict, adapter: pathlib.Path, path: pathlib.Path) -> None:
    """config: the base's config.json; adapter: a PEFT folder."""
    options = json.loads((adapter / "adapter_config.json").read_text())
    rank, alpha = options["r"], options["lora_alpha"]
    writer = gguf.GGUFWriter(str(path), config["model_type"])
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    # llama.cpp scales by alpha / rank; rsLoRA is alpha / sqrt(rank).
    writer.add_float32("adapter.lora.alpha", alpha * rank**0.5 if options.get("use_rslora") else alpha)
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, weight in load_file(adapter / "adapter_model.safetensors").items():
        hub_name = name.removeprefix("base_model.model.").replace(".lora_A", "").replace(".lora_B", "")
        is_b = ".lora_B." in name
        if is_b and config["model_type"] == "llama" and hub_name.split(".")[-2] in heads:
            weight = interleave_rope_rows(weight, heads[hub_name.split(".")[-2]])
        writer.add_tensor(gguf_name(hub_name) + (".lora_b" if is_b else ".lora_a"), weight.astype("float32").copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
