"""Qwen3_5MoeForCausalLM: qwen3_5_text with experts in all layers."""
from case import Case
from expert_cases import ATTENTION, lora
from families.qwen3_5_text import DELTA
from families.qwen3_5_text import SMALL as DENSE
from families.qwen3_5_text import WIDE as WIDE_DENSE


def with_experts(dense: dict, **options) -> dict:
    kept = {key: value for key, value in dense.items() if key not in ("intermediate_size", "mtp_num_hidden_layers")}
    return kept | {"architectures": ["Qwen3_5MoeForCausalLM"], "model_type": "qwen3_5_moe_text", "router_aux_loss_coef": 0.001, "output_router_logits": False} | options


SMALL = with_experts(DENSE, moe_intermediate_size=24, shared_expert_intermediate_size=40, num_experts=6, num_experts_per_tok=2)
WIDE = with_experts(WIDE_DENSE, moe_intermediate_size=56, shared_expert_intermediate_size=72, num_experts=9, num_experts_per_tok=4, tie_word_embeddings=False)

CASES = [
    Case("qwen3_5_moe_text_untied", SMALL, lora=lora("mlp.shared_expert", attention=ATTENTION + DELTA), load_balancing=0.7),
    Case("qwen3_5_moe_text_stacked", WIDE, stacked=True, gguf=False, lora=lora("mlp.shared_expert", attention=ATTENTION + DELTA, use_rslora=True, r=3)),
    Case("qwen3_5_moe_text_sharded", SMALL | {"linear_num_value_heads": 2, "rms_norm_eps": 1e-5}, sharded=True, lora=lora(attention=DELTA)),
]
