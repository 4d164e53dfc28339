"""Glm4ForCausalLM (GLM-4-0414): glm with norms before and after both halves of a layer."""
from case import Case
from families import glm

SMALL = glm.SMALL | {"architectures": ["Glm4ForCausalLM"], "model_type": "glm4"}
WIDE = glm.WIDE | {"architectures": ["Glm4ForCausalLM"], "model_type": "glm4"}

CASES = [
    Case("glm4_biases", SMALL, sharded=True),
    Case("glm4_tied", WIDE, lora={"use_rslora": True}, gguf=False),
    Case("glm4_tied_square", WIDE | {"head_dim": 16, "partial_rotary_factor": 0.5}),
]
