"""kimi_k2: the layers of DeepSeek V3 under another model_type, which transformers has no class for; DeepseekV3ForCausalLM judges it."""
from case import Case
from expert_cases import LATENT, lora
from families.deepseek_v3 import DIRECT, SMALL, YARN


def case(name: str, config: dict, **options) -> Case:
    return Case(name, config | {"model_type": "kimi_k2"}, reference=config, **options)


CASES = [
    case("kimi_k2_yarn", SMALL | {"n_group": 1, "topk_group": 1, "num_nextn_predict_layers": 0, "routed_scaling_factor": 2.827, "rope_theta": 50000.0,
                                  "rope_scaling": YARN | {"beta_fast": 1.0, "beta_slow": 1.0}},
         lora=lora("mlp", "mlp.shared_experts", attention=LATENT), gguf_lora=False),
    case("kimi_k2_wide", DIRECT | {"q_lora_rank": 28, "num_nextn_predict_layers": 0}, sharded=True, lora={"target_modules": ["o_proj"], "use_rslora": True}),
]
