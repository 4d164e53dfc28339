"""Sharded checkpoints of gigabytes with small random numbers in them, written tensor by tensor: the same numbers over and over, from places that differ."""
import json
import math
import pathlib

import numpy

SHARD_BYTES = 300 << 20
# Small random bfloat16 numbers.
NOISE = (numpy.random.default_rng(5).standard_normal((1 << 20) + 7, dtype=numpy.float32) * 0.02).view(numpy.uint32) >> 16
NOISE = NOISE.astype(numpy.uint16)


def attention(layer: str, hidden: int, heads: int, kv_heads: int, size: int, biases: bool = False) -> dict:
    rows = {"q_proj": (heads * size, hidden), "k_proj": (kv_heads * size, hidden), "v_proj": (kv_heads * size, hidden), "o_proj": (hidden, heads * size)}
    tensors = {f"{layer}.self_attn.{name}.weight": shape for name, shape in rows.items()}
    return tensors | ({f"{layer}.self_attn.{name}.bias": shape[:1] for name, shape in rows.items()} if biases else {})


def ends(hidden: int, vocabulary: int) -> dict:
    return {"model.embed_tokens.weight": (vocabulary, hidden), "model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}


def norms(layer: str, hidden: int) -> dict:
    return {f"{layer}.input_layernorm.weight": (hidden,), f"{layer}.post_attention_layernorm.weight": (hidden,)}


def config(model_type: str, hidden: int, layers: int, vocabulary: int, width: int, **more) -> dict:
    return {"model_type": model_type, "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": width, "num_hidden_layers": layers, "num_attention_heads": 16,
            "num_key_value_heads": 4, "head_dim": hidden // 16, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "tie_word_embeddings": False} | more


def llama(hidden: int, layers: int, vocabulary: int, width: int) -> tuple[dict, dict]:
    tensors = ends(hidden, vocabulary)
    for index in range(layers):
        layer = f"model.layers.{index}"
        tensors |= norms(layer, hidden) | attention(layer, hidden, 16, 4, hidden // 16)
        tensors |= {f"{layer}.mlp.gate_proj.weight": (width, hidden), f"{layer}.mlp.up_proj.weight": (width, hidden), f"{layer}.mlp.down_proj.weight": (hidden, width)}
    return config("llama", hidden, layers, vocabulary, width), tensors


def qwen3_moe(hidden: int, layers: int, vocabulary: int, width: int, experts: int) -> tuple[dict, dict]:
    """Experts one by one."""
    tensors = ends(hidden, vocabulary)
    for index in range(layers):
        layer = f"model.layers.{index}"
        tensors |= norms(layer, hidden) | attention(layer, hidden, 16, 4, hidden // 16) | {f"{layer}.mlp.gate.weight": (experts, hidden)}
        tensors |= {f"{layer}.self_attn.{name}_norm.weight": (hidden // 16,) for name in ("q", "k")}
        for expert in range(experts):
            one = f"{layer}.mlp.experts.{expert}"
            tensors |= {f"{one}.gate_proj.weight": (width, hidden), f"{one}.up_proj.weight": (width, hidden), f"{one}.down_proj.weight": (hidden, width)}
    return config("qwen3_moe", hidden, layers, vocabulary, width, num_experts=experts, num_experts_per_tok=4, moe_intermediate_size=width, norm_topk_prob=True), tensors


def gpt_oss(hidden: int, layers: int, vocabulary: int, width: int, experts: int, mxfp4: bool = False) -> tuple[dict, dict]:
    """All experts of a layer as one tensor: transposed, gate and up in turn; or blocks of four-bit floats and their scales apart."""
    tensors = ends(hidden, vocabulary)
    for index in range(layers):
        layer = f"model.layers.{index}"
        tensors |= norms(layer, hidden) | attention(layer, hidden, 16, 4, hidden // 16, biases=True)
        tensors |= {f"{layer}.self_attn.sinks": (16,), f"{layer}.mlp.router.weight": (experts, hidden), f"{layer}.mlp.router.bias": (experts,)}
        for name, rows, columns in (("gate_up_proj", 2 * width, hidden), ("down_proj", hidden, width)):
            matrix = f"{layer}.mlp.experts.{name}"
            tensors |= {f"{matrix}_bias": (experts, rows)}
            tensors |= ({f"{matrix}_blocks": (experts, rows, columns // 32, 16), f"{matrix}_scales": (experts, rows, columns // 32)} if mxfp4
                        else {matrix: (experts, columns, rows)})
    more = {"quantization_config": {"quant_method": "mxfp4"}} if mxfp4 else {}
    return config("gpt_oss", hidden, layers, vocabulary, width, num_local_experts=experts, num_experts_per_tok=4, sliding_window=128,
                  rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, **more), tensors


def gpt2(hidden: int, layers: int, vocabulary: int) -> tuple[dict, dict]:
    """Every matrix transposed."""
    tensors = {"wte.weight": (vocabulary, hidden), "wpe.weight": (512, hidden), "ln_f.weight": (hidden,), "ln_f.bias": (hidden,)}
    for index in range(layers):
        tensors |= {f"h.{index}.{norm}.{kind}": (hidden,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")}
        for name, inputs, outputs in (("attn.c_attn", hidden, 3 * hidden), ("attn.c_proj", hidden, hidden), ("mlp.c_fc", hidden, 4 * hidden), ("mlp.c_proj", 4 * hidden, hidden)):
            tensors |= {f"h.{index}.{name}.weight": (inputs, outputs), f"h.{index}.{name}.bias": (outputs,)}
    return {"model_type": "gpt2", "vocab_size": vocabulary, "n_embd": hidden, "n_layer": layers, "n_head": 16, "n_positions": 512, "layer_norm_epsilon": 1e-5}, tensors


def bytes_of(name: str, shape: tuple) -> int:
    return math.prod(shape) * (1 if name.endswith(("_blocks", "_scales")) else 2)


def write_tensor(file, name: str, shape: tuple, place: int) -> None:
    left = bytes_of(name, shape)
    scales = name.endswith("_scales")     # of four-bit floats up to 6: 2 ** (119 - 127) makes numbers as small as the others
    noise = numpy.full(NOISE.size, 119 * 257, numpy.uint16) if scales else numpy.roll(NOISE, place)
    while left > 0:
        part = noise.view(numpy.uint8)[:left]
        file.write(part.data)
        left -= part.size


def write_checkpoint(folder: pathlib.Path, settings: dict, tensors: dict) -> int:
    """A hub-style directory, written tensor by tensor. Returns the bytes of its tensors."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    shards, filled = [{}], 0
    for name, shape in tensors.items():
        if filled > 0 and filled + bytes_of(name, shape) > SHARD_BYTES:
            shards.append({})
            filled = 0
        shards[-1][name] = shape
        filled += bytes_of(name, shape)
    places, total = {}, 0
    for index, shard in enumerate(shards):
        file_name = f"model-{index + 1:05}-of-{len(shards):05}.safetensors"
        header, offset = {}, 0
        for name, shape in shard.items():
            end = offset + bytes_of(name, shape)
            header[name] = {"dtype": "U8" if name.endswith(("_blocks", "_scales")) else "BF16", "shape": shape, "data_offsets": [offset, end]}
            offset, places[name] = end, file_name
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / file_name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for place, (name, shape) in enumerate(shard.items()):
                write_tensor(file, name, shape, 1009 * place)
        total += offset
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": places}))
    return total
