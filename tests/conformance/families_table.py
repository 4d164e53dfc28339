#!/usr/bin/env python3
"""Writes docs/families.md from what conformance_test.py and exported_test.py measured.

  families_table.py --goldens DIR [--out FILE]       DIR: where they left <family>.conformance.json and <family>.exported.json
"""
import argparse
import importlib
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
HEAD = """# Families
Written by `tests/conformance/families_table.py` from a test run: `tools/test -R conformance/`, then `python tests/conformance/families_table.py --goldens build/cpu/goldens`. Every family is **proven on
random weights only**: tiny models of transformers 5.23.0 and PEFT 0.21.2 in float32, norm epsilons of 1e-3.

- **shapes**: hidden size / heads / key-value heads / head size / layers of each case; with latent attention the head size is plain + rotary elements of a query : elements of a value.
- **logits**, **gradients**: largest error |x-y|^2 / (|x|^2 + |y|^2) of all cases against the reference, rows and packed documents; at most 1e-10 and 1e-9.
- **llama.cpp**: largest mean KL of GGUF files written here (base with GGUF LoRA, merged) to the reference, in xllamacpp 2026.10.11549, float32;
  `-`: llama.cpp does not know the family. Families with GELU: llama.cpp takes it from a table of 16-bit floats.

| family (model_type) | judged by | shapes | logits | gradients | llama.cpp | proven on |
|---|---|---|---|---|---|---|
"""
TAIL = """
## Mixtures of experts
- Routers, their biases and the gate of a shared expert stay frozen; `adapter.targets` reaches routed experts as `gate_up_proj` and `down_proj` of `mlp.experts` (all of a layer at a time,
  each expert with factors of its own; gate and up share A, as in PEFT) and shared experts and dense layers as their linear layers. `adapter.dropout` is 0 on experts, as in PEFT.
- Adapters are PEFT's `target_parameters`, both ways; also those that PEFT makes of transformers 4's names (`gate_proj`, `w1`, ...: it doubles the rank of `gate_up_proj`). PEFT's own
  `all-linear` adapts routers too: such an adapter is refused.
- On the hub experts may lie one by one or stacked (`experts.gate_up_proj` [E, 2I, C]); exports write them one by one, GGUF stacks them. gpt_oss has a stacked layout of its own, with biases,
  in bfloat16 or as it is published, in MXFP4 (from hub files joined in memory to the blocks that GGUF has); merged exports are in the forms that are asked for, none of them MXFP4.
- Layers that predict further tokens (glm4_moe, ernie4_5_moe, deepseek_v3, kimi_k2, glm4_moe_lite, deepseek_v32, glm_moe_dsa) are skipped by name, and `plan` lists them.
- `objective.load_balancing` adds transformers' auxiliary loss (mixtral, qwen2_moe, qwen3_moe, ernie4_5_moe, gpt_oss) of each micro-batch, weighted by its share of the step's supervised
  tokens. With routers frozen it moves the layers before them.
- `metrics.jsonl` has of each step `load_balancing_loss` (even routing: the number of experts a token goes through), `largest_expert_share` (of a layer's choices, the largest of all
  layers; even: 1 / experts) and `expert_entropy` (mean over layers; 1 even, 0 all on one expert). Tokens that are computed once for several rows count once.
- What llama.cpp computes otherwise is refused in GGUF exports: qwen3_moe without `norm_topk_prob` or with dense layers, qwen2_moe with it, with dense layers or a tied head, ernie4_5_moe
  with dense layers between or behind others, numbers of chosen experts that differ by layer. It rounds the bounds of YaRN, which gpt_oss does not: a small difference of the served model, which a certificate by llama.cpp measures.

## Latent attention
- `adapter.targets` reaches `q_a_proj`, `q_b_proj` (or `q_proj`), `kv_a_proj_with_mqa`, `kv_b_proj` and `o_proj`, with PEFT's names both ways. The latents' norms have an epsilon of 1e-6 of their own,
  as in transformers; routers, their selection biases and norms stay frozen.
- GGUF holds all of these families as `deepseek2`: `kv_b_proj` is split by heads into `attn_k_b` (transposed) and `attn_v_b`. A file whose router has sigmoid scores is read as deepseek_v3 (which
  computes kimi_k2 and glm4_moe_lite too), one with softmax as deepseek_v2. Files from before that split (`attn_kv_b`) are refused.
- llama.cpp adds a GGUF LoRA to the output's product, to dense MLPs and to experts, but not to the products that make queries, keys and values: `gguf-lora` with adapters on those is refused; merged
  GGUF exports hold them.
- It has one epsilon for all norms: a GGUF file is computed with it here too, and `rms_norm_eps` above 1e-5 (published: at most 1e-5) is refused in GGUF exports. So are biases in attention,
  `rope_interleave` false, YaRN whose `mscale` is not `mscale_all_dim`, deepseek_v2's groups of experts by their best one, dense layers behind others.
- The key-value cache holds keys and values of all heads, not the latent. Blocks of a quantised `attn_k_b` or `attn_v_b` are decoded to float32 when a GGUF base is loaded.

## DeepSeek sparse attention (deepseek_v32, glm_moe_dsa)
- Where a token has more than `index_topk` keys, its own included, an indexer scores them, and it sees the `index_topk` best. Batches whose documents are all of at most `index_topk` tokens never
  read the indexer: they train and cost as latent attention does. Beyond, the indexer costs its products and attention multiplies all keys and hides the others: exact, but no faster than dense.
- As in transformers the indexer has no gradient: it is frozen, `adapter.targets` does not reach its matrices (an adapter with some on them is refused), and adapters before it change what it
  selects. It is computed in float32, also under bfloat16, without the Hadamard rotation (which changes no score) and the FP8 rounding of DeepSeek's own code.
- A layer that shares (`indexer_types`, `index_topk_pattern`, `index_topk_freq`) sees the keys of the layer before it; recomputation keeps what was handed on. Caches hold the indexer's keys from the
  first token on. With `run.shard_base` the indexer's matrices, as routers, stay whole in every process.
- GGUF: `deepseek32` and `glm-dsa`. llama.cpp turns an indexer's keys by Hadamard matrices of 64 and takes half of a head as rotary, as published models have it: another `index_head_dim` is refused in
  GGUF exports, and for glm_moe_dsa scaled rotary embedding too. `indexer.proj` is never quantised.

## Delta attention
- qwen3_next, qwen3_5_text and qwen3_5_moe_text (the text models of Qwen3.5 to 3.8; inside `qwen3_5` and `qwen3_5_moe` vision models the vision part is skipped by name), kimi_linear. State and
  convolution begin anew with every document of a packed batch (transformers' own path without further kernels leaks from one to the next). States, decays and sums are float32.
- `adapter.targets` reaches `in_proj_qkvz` and `in_proj_ba` (qwen3_next), `in_proj_qkv`, `in_proj_z`, `in_proj_b` and `in_proj_a` (qwen3_5), `q_proj`, `k_proj`, `v_proj`, `f_a_proj`, `f_b_proj`, `b_proj`,
  `g_a_proj` and `g_b_proj` (kimi_linear) and the output, with PEFT's names both ways. Convolutions, rates of decay and norms stay frozen.
- Decoding keeps a state and the last tokens of the convolution in place of keys and values. What cannot be cut back is read again: where a chat's template rewrites earlier turns, and in the label
  search of `eval`, from the prompt's end on. The tokens with which all rows of a micro-batch begin are not shared in these families.
- GGUF: `qwen3next` (`in_proj_qkvz` is split), `qwen35` and `qwen35moe` (value heads in another order: rows are moved, and the columns of the output's matrix), `kimi-linear`. llama.cpp has linear attention
  in all layers but the last of each interval, keys and values of one size, no biases, in qwen3next experts in all layers: other models are refused in GGUF exports.
- On a GPU kernels compute chunks of 64 or 32 tokens (bfloat16 and float32, heads up to 128, convolutions up to 8 tokens; else token by token in plain ATen). They were not measured.
"""
JUDGES = {"kimi_k2": "DeepseekV3ForCausalLM, configuration renamed", "chatglm": "GlmForCausalLM, weights renamed and fused", "pangu_embedded": "LlamaForCausalLM with biases"}


def first(config: dict, *keys: str):
    return next((config[key] for key in keys if config.get(key) is not None), None)


def shape(config: dict) -> str:
    hidden = first(config, "hidden_size", "n_embd", "n_embed")
    heads = first(config, "num_attention_heads", "n_head")
    kv = first(config, "num_key_value_heads", "multi_query_group_num") or heads
    size = first(config, "head_dim", "kv_channels") or hidden // heads
    if "kv_lora_rank" in config:
        size = f"{config['qk_nope_head_dim']}+{config['qk_rope_head_dim']}:{config['v_head_dim']}"
    return f"{hidden}/{heads}/{kv}/{size}/{first(config, 'num_hidden_layers', 'n_layer', 'num_layers')}"


def row(family: str, goldens: pathlib.Path) -> str | None:
    conformance = goldens / f"{family}.conformance.json"
    if not conformance.exists():
        return None
    module = importlib.import_module(f"families.{family}")
    measured = json.loads(conformance.read_text())
    exported = goldens / f"{family}.exported.json"
    reports = json.loads(exported.read_text()) if exported.exists() else {}
    kls = [value for report in reports.values() for what, value in report.items() if what.endswith("llama.cpp")]
    shapes = dict.fromkeys(shape(case.config.get("text_config", case.config)) for case in module.CASES)
    model_type = module.CASES[0].config["model_type"]
    judge = JUDGES.get(family, module.CASES[0].config["architectures"][0])
    largest = lambda kind: max(errors[kind] for errors in measured.values())
    kl = f"{max(kls):.1e}" if kls else "-"
    return (f"| {model_type} | {judge} | {', '.join(shapes)} | {largest('logits'):.1e} | {largest('gradients'):.1e} | {kl} | "
            f"random weights only |\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goldens", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=HERE.parents[1] / "docs" / "families.md")
    arguments = parser.parse_args()
    rows = [row(path.stem, arguments.goldens) for path in sorted((HERE / "families").glob("*.py"))]
    arguments.out.write_text(HEAD + "".join(line for line in rows if line) + TAIL)


if __name__ == "__main__":
    main()
