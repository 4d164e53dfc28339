"""Hub directories of random bfloat16 weights in the shape of known models, for speed and memory without a download."""
import json
import pathlib

import torch
from safetensors.torch import save_file

SHARD_BYTES = 4 << 30
DEVICE = "cuda:0" if torch.cuda.is_available() else "cpu"
QWEN3 = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "vocab_size": 151936, "head_dim": 128, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "max_position_embeddings": 40960}
SHAPES = {
    "qwen3-0.6b": QWEN3 | {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "intermediate_size": 3072, "tie_word_embeddings": True},
    "qwen3-8b": QWEN3 | {"hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 12288, "tie_word_embeddings": False},
    "qwen3-30b-a3b": QWEN3 | {"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4,
                              "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": True, "tie_word_embeddings": False},
    "gpt-oss-20b": {"model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"], "vocab_size": 201088, "hidden_size": 2880, "num_hidden_layers": 24, "num_attention_heads": 64,
                    "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 2880, "num_local_experts": 32, "num_experts_per_tok": 4, "sliding_window": 128, "rms_norm_eps": 1e-5,
                    "max_position_embeddings": 131072, "tie_word_embeddings": False, "rope_parameters": {"rope_type": "default", "rope_theta": 150000.0}},
    "deepseek-v2-lite": {"model_type": "deepseek_v2", "architectures": ["DeepseekV2ForCausalLM"], "vocab_size": 102400, "hidden_size": 2048, "num_hidden_layers": 27, "num_attention_heads": 16,
                         "num_key_value_heads": 16, "q_lora_rank": None, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "intermediate_size": 10944,
                         "moe_intermediate_size": 1408, "n_routed_experts": 64, "num_experts_per_tok": 6, "n_shared_experts": 2, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
                         "topk_method": "greedy", "routed_scaling_factor": 1.0, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 163840, "tie_word_embeddings": False},
}


def gated_mlp(name: str, width: int, hidden: int):
    yield f"{name}.gate_proj.weight", (width, hidden)
    yield f"{name}.up_proj.weight", (width, hidden)
    yield f"{name}.down_proj.weight", (hidden, width)


def attention(config: dict, name: str):
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    if config["model_type"] == "deepseek_v2":
        plain, turning, values, rank = (config[key] for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank"))
        yield f"{name}.q_proj.weight", (heads * (plain + turning), hidden)
        yield f"{name}.kv_a_proj_with_mqa.weight", (rank + turning, hidden)
        yield f"{name}.kv_a_layernorm.weight", (rank,)
        yield f"{name}.kv_b_proj.weight", (heads * (plain + values), rank)
        yield f"{name}.o_proj.weight", (hidden, heads * values)
        return
    size, keys = config["head_dim"], config["num_key_value_heads"]
    for part, rows in (("q", heads), ("k", keys), ("v", keys)):
        yield f"{name}.{part}_proj.weight", (rows * size, hidden)
        if config["model_type"] == "gpt_oss":
            yield f"{name}.{part}_proj.bias", (rows * size,)
    yield f"{name}.o_proj.weight", (hidden, heads * size)
    if config["model_type"] == "gpt_oss":
        yield f"{name}.o_proj.bias", (hidden,)
        yield f"{name}.sinks", (heads,)
    else:
        yield f"{name}.q_norm.weight", (size,)
        yield f"{name}.k_norm.weight", (size,)


def channel(config: dict, name: str, layer: int):
    hidden, kind = config["hidden_size"], config["model_type"]
    if kind == "qwen3" or (kind == "deepseek_v2" and layer < config["first_k_dense_replace"]):
        yield from gated_mlp(name, config["intermediate_size"], hidden)
    elif kind == "gpt_oss":
        experts, width = config["num_local_experts"], config["intermediate_size"]
        yield f"{name}.router.weight", (experts, hidden)
        yield f"{name}.router.bias", (experts,)
        yield f"{name}.experts.gate_up_proj", (experts, hidden, 2 * width)
        yield f"{name}.experts.gate_up_proj_bias", (experts, 2 * width)
        yield f"{name}.experts.down_proj", (experts, width, hidden)
        yield f"{name}.experts.down_proj_bias", (experts, hidden)
    else:
        experts = config.get("num_experts") or config["n_routed_experts"]
        yield f"{name}.gate.weight", (experts, hidden)
        for expert in range(experts):
            yield from gated_mlp(f"{name}.experts.{expert}", config["moe_intermediate_size"], hidden)
        if config.get("n_shared_experts"):
            yield from gated_mlp(f"{name}.shared_experts", config["n_shared_experts"] * config["moe_intermediate_size"], hidden)


def tensors_of(config: dict):
    """(name, shape) of the hub's tensors, in order."""
    hidden = config["hidden_size"]
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        yield f"{name}.input_layernorm.weight", (hidden,)
        yield from attention(config, f"{name}.self_attn")
        yield f"{name}.post_attention_layernorm.weight", (hidden,)
        yield from channel(config, f"{name}.mlp", layer)
    yield "model.norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (config["vocab_size"], hidden)


def random_bf16(shape: tuple) -> torch.Tensor:
    """Vectors of ones; matrices uniform with the standard deviation 0.02 that most models begin with."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    return torch.empty(shape, dtype=torch.bfloat16, device=DEVICE).uniform_(-0.02 * 3 ** 0.5, 0.02 * 3 ** 0.5).cpu()


def write_tokenizer(folder: pathlib.Path) -> None:
    """A byte is a token: ids 0 to 255, and an end token."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}))


def write_random_model(folder: pathlib.Path, name: str, layers: int = 0) -> int:
    """Writes the directory, with fewer layers where `layers` says so; returns the number of parameters."""
    config = SHAPES[name] | ({"num_hidden_layers": layers} if layers else {}) | {"torch_dtype": "bfloat16", "eos_token_id": 256}
    if config["model_type"] == "gpt_oss":
        config["layer_types"] = ["full_attention" if layer % 2 else "sliding_attention" for layer in range(config["num_hidden_layers"])]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    write_tokenizer(folder)
    torch.manual_seed(1)
    shard, shards, held, parameters = {}, [], 0, 0

    def flush() -> None:
        nonlocal shard, held
        path = f"model-{len(shards) + 1:05}.safetensors"
        save_file(shard, folder / path)
        shards.append((path, list(shard)))
        shard, held = {}, 0

    for tensor, shape in tensors_of(config):
        shard[tensor] = random_bf16(shape)
        held += shard[tensor].nbytes
        parameters += shard[tensor].numel()
        if held >= SHARD_BYTES:
            flush()
    flush()
    index = {tensor: path for path, tensors in shards for tensor in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 2 * parameters}, "weight_map": index}))
    return parameters
