"""LoRA on mixtures of experts, as PEFT names it: experts are parameters, routers stay frozen ("all-linear" would adapt them)."""

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
LATENT = ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"]    # latent attention; without a queries' latent q_proj
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def weights(*modules: str) -> list[str]:
    """gate_proj, up_proj and down_proj below a module as parameters: among target_modules PEFT takes them for experts."""
    return [f"{module}.{name}.weight" for module in modules for name in ("gate_proj", "up_proj", "down_proj")]


def lora(*modules: str, attention: list[str] = ATTENTION, **options) -> dict:
    """On attention, routed experts and the MLPs named."""
    return {"target_modules": attention, "target_parameters": EXPERTS + weights(*modules)} | options
