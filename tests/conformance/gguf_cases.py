"""The types that a family's GGUF cases go through; each family says only its configuration."""
from case import GgufCase

# Every type that graft reads (issue A); the matrices of a layer take them in turn.
ALL_TYPES = ("Q4_K", "Q6_K", "Q4_0", "BF16", "Q5_K", "Q4_1", "Q8_0", "Q5_0", "F16")


def gguf_cases(family: str, config: dict, **extra) -> list[GgufCase]:
    """A file in F32, one in Q8_0, and one in which all types meet. Rows must be multiples of 256 for K-quants."""
    return [
        GgufCase(f"{family}_gguf_f32", config, types=("F32",), **extra),
        GgufCase(f"{family}_gguf_q8_0", config, types=("Q8_0",), **extra),
        GgufCase(f"{family}_gguf_mixed", config, types=ALL_TYPES, head_type="Q6_K", **extra),
    ]
