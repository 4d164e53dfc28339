"""What a golden is made of: a family's configurations, their adapters and the layout of their files. Read by what makes goldens and by what checks them, which
needs no Torch."""
import pathlib
import re
from dataclasses import dataclass, field


@dataclass
class Layout:
    """How a checkpoint that transformers has no class for lays out the weights of the class that judges it. First, parts below a
    layer are laid over each other (rows), then names are changed by regular expressions."""
    fused: dict = field(default_factory=dict)   # new part -> parts, in order
    names: dict = field(default_factory=dict)   # pattern -> replacement
    surplus: tuple = ()                         # names of further tensors in the file, which are not the text model's

    def apply(self, tensors: dict, sum_a: bool = False) -> dict:
        """LoRA's A is one matrix for all parts (the first; a gradient: their sum), B has the rows of all."""
        import torch
        result = {}
        for name, tensor in tensors.items():
            whole = next(((new, parts) for new, parts in self.fused.items() if any(f"{part}." in name for part in parts)), None)
            if whole is None:
                result[name] = tensor
                continue
            new, parts = whole
            if f"{parts[0]}." not in name:
                continue
            all_parts = [tensors[name.replace(parts[0], part)] for part in parts]
            if ".lora_A." in name:
                tensor = sum(all_parts) if sum_a else tensor
            else:
                tensor = torch.cat(all_parts)
            result[name.replace(parts[0], new)] = tensor
        for pattern, replacement in self.names.items():
            result = {self.rename(pattern, replacement, name): tensor for name, tensor in result.items()}
        return {name: tensor.contiguous().clone() for name, tensor in result.items()}

    def apply_to_file(self, path: pathlib.Path) -> None:
        import torch
        from safetensors.torch import load_file, save_file
        tensors = self.apply(load_file(path)) | {name: torch.ones(2, 3) for name in self.surplus}
        save_file(tensors, path, metadata={"format": "pt"})

    @staticmethod
    def rename(pattern: str, replacement: str, name: str) -> str:
        prefix = next((p for p in ("grad.base_model.model.", "base_model.model.") if name.startswith(p)), "")
        return prefix + re.sub(pattern, replacement, name[len(prefix):])


@dataclass
class Case:
    name: str
    config: dict                                # config.json, word for word as a hub repository has it
    lora: dict = field(default_factory=dict)    # overrides of LoraConfig
    sharded: bool = False
    gguf: bool = True                           # llama.cpp computes this variant
    gguf_lora: bool = True                      # and adds its adapter to every product that has one
    gguf_to_hub: bool = True                    # and its file says all that config.json wants
    reference: dict | None = None               # configuration of the class that judges it, where transformers has none of this family
    layout: Layout | None = None                # of the files, where not as transformers writes them
    stacked: bool = False                       # experts as transformers holds them: one tensor of all, where hub files have one of each
    mxfp4: bool = False                         # experts as gpt-oss is published: blocks of four-bit floats and their scales
    load_balancing: float = 0                   # weight of the auxiliary loss in a third golden
    length: int = 23                            # odd: no kernel may rely on round sizes
    document_lengths: tuple = (7, 1, 12, 2, 19)


@dataclass
class GgufCase(Case):
    types: tuple = ("F32",)                      # matrices take these in turn
    head_type: str = ""                          # of token_embd and output; default: the first of `types`
    metadata: dict = field(default_factory=dict)  # below "<arch>."
    rope_factors: tuple = ()                     # rope_freqs.weight
