"""The same inputs for graft and for its peer: one model directory, and rows as graft encodes them."""
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"


def model_directory(folder: pathlib.Path, dtype: str) -> pathlib.Path:
    """The GGUF's weights in `dtype` (float32, bfloat16) as a Hugging Face directory with tokenizer and template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    model = AutoModelForCausalLM.from_pretrained(MODEL.parent, gguf_file=MODEL.name, dtype=getattr(torch, dtype))
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODEL.parent, gguf_file=MODEL.name).save_pretrained(folder)
    return folder


def peer_row(rendered: dict) -> dict:
    """One line of `graft render` as a row of peft_peer.py: a token that is not supervised has label -100."""
    return {"ids": rendered["ids"], "labels": [token if kept else -100 for token, kept in zip(rendered["ids"], rendered["mask"])]}
