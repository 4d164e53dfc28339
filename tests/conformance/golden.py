"""Tiny random models in hub naming, random LoRA adapters, and the goldens that `graft conform` reads (DESIGN section 5).

The reference is transformers + PEFT in float32 on the CPU, always with the model as it lies on disk, so that a golden
never depends on how it was made. Everything is seeded by the case's name.
"""
import copy
import json
import pathlib
import shutil
import sys
import zlib

sys.modules.setdefault("bitsandbytes", None)   # PEFT would import it, which takes 2 s

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from case import Case


def generator_of(case_name: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(case_name.encode()))


def multiplies_with_one_more(model_type: str, name: str) -> bool:
    """Whether a norm's factor is 1 + weight."""
    return model_type.startswith("gemma") or (model_type.startswith(("qwen3_next", "qwen3_5")) and "linear_attn.norm" not in name)


def correlate_keys(module: torch.nn.Module) -> None:
    """Keys of linear attention near their queries. Where they are orthogonal, the norm behind divides by nearly nothing, and the reference's own float32
    gradients are noise."""
    def mix(query: torch.Tensor, key: torch.Tensor) -> None:
        key.copy_(0.8 * query + 0.4 * key)
    if hasattr(module, "in_proj_qkvz"):
        size, heads = module.head_k_dim, module.num_k_heads
        rows = module.in_proj_qkvz.weight.view(heads, -1, module.hidden_size)
        mix(rows[:, :size], rows[:, size:2 * size])
    elif hasattr(module, "in_proj_qkv"):
        mix(module.in_proj_qkv.weight[:module.key_dim], module.in_proj_qkv.weight[module.key_dim:2 * module.key_dim])
    elif hasattr(module, "forget_gate"):
        mix(module.q_proj.weight, module.k_proj.weight)
    else:
        return
    channels = module.q_proj.weight.shape[0] if hasattr(module, "forget_gate") else module.key_dim
    mix(module.conv1d.weight[:channels], module.conv1d.weight[channels:2 * channels])


def randomise(model: torch.nn.Module, random: torch.Generator) -> None:
    """Weights at which every part matters: norms away from 1, biases away from 0. Larger ones (1.5) make the tiny model so
    ill-conditioned that the reference's own float32 gradients are 3e-9 from its float64 ones, above the tolerance."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("A_log"):   # decays near 1: states reach far
                weight.copy_(-1 + 0.3 * torch.randn(weight.shape, generator=random))
            elif weight.dim() == 1:
                centre = 0.0 if name.endswith("bias") or multiplies_with_one_more(model.config.model_type, name) else 1.0
                spread = 0.3
                weight.copy_(centre + spread * torch.randn(weight.shape, generator=random))
            else:
                weight.copy_(torch.randn(weight.shape, generator=random) * 0.6 / weight.shape[-1] ** 0.5)
        for module in model.modules():
            correlate_keys(module)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(0.2 * torch.randn(buffer.shape, generator=random))


def eager_experts(model: torch.nn.Module) -> torch.nn.Module:
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")   # the grouped product knows no double
    return model


def load_model(folder: pathlib.Path) -> torch.nn.Module:
    return eager_experts(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")).eval()


def write_mxfp4(model: torch.nn.Module, path: pathlib.Path) -> None:
    """Replaces the experts' matrices in the file by bytes, and in the model by what these decode to. ggml's blocks hold elements j and j + 16 in one byte,
    these files neighbours."""
    import gguf
    kind = gguf.GGMLQuantizationType.MXFP4
    tensors = load_file(path)
    for name, weight in model.named_parameters():
        if weight.dim() != 3:
            continue
        rows = weight.detach().transpose(1, 2).contiguous().numpy()     # [E, out, in]
        blocks = gguf.quants.quantize(rows.reshape(-1, rows.shape[-1]), kind)
        decoded = torch.from_numpy(gguf.quants.dequantize(blocks, kind)).reshape(rows.shape)
        with torch.no_grad():
            weight.copy_(decoded.transpose(1, 2))
        blocks = torch.from_numpy(blocks).reshape(*rows.shape[:2], -1, 17)
        elements = torch.cat([blocks[..., 1:] & 15, blocks[..., 1:] >> 4], dim=-1)
        del tensors[name]
        tensors[name + "_blocks"] = elements[..., 0::2] | elements[..., 1::2] << 4
        tensors[name + "_scales"] = blocks[..., 0]
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})


def write_model(case: Case, folder: pathlib.Path) -> torch.nn.Module:
    """A hub-style directory: safetensors, single or sharded, and the case's config.json. Returns what it loads as."""
    config = AutoConfig.for_model(**copy.deepcopy(case.reference or case.config))   # it writes into nested dicts
    model = eager_experts(AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")).eval()
    randomise(model, generator_of(case.name))
    model.tie_weights()
    model.save_pretrained(folder, max_shard_size="40KB" if case.sharded else "1GB")
    shards = len(list(folder.glob("*.safetensors")))
    assert (shards > 1) == case.sharded, f"{case.name}: {shards} file(s)"
    (folder / "config.json").write_text(json.dumps(case.config, indent=2) + "\n")
    (folder / "generation_config.json").unlink(missing_ok=True)
    if case.stacked:
        tied = {"lm_head.weight"} if case.config["tie_word_embeddings"] else set()
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in tied}, folder / "model.safetensors",
                  metadata={"format": "pt"})
    if case.layout:
        case.layout.apply_to_file(folder / "model.safetensors")
    if case.mxfp4:
        write_mxfp4(model, folder / "model.safetensors")
    if case.reference:
        return model
    reloaded = load_model(folder)
    for (name, ours), (_, theirs) in zip(model.state_dict().items(), reloaded.state_dict().items()):
        assert torch.equal(ours, theirs), f"{case.name}: {name} changed on its way through the disk"
    return reloaded


def attach_adapter(model: torch.nn.Module, case: Case, folder: pathlib.Path) -> PeftModel:
    """A PEFT adapter with random, non-zero A and B, saved and loaded again."""
    options = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | case.lora
    adapted = get_peft_model(model, LoraConfig(**options))
    random = generator_of(case.name + "/adapter")
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=random) * 0.1)
        for parts in (case.layout.fused.values() if case.layout else ()):    # one A for what is one matrix in the files
            weights = dict(adapted.named_parameters())
            for name, weight in weights.items():
                if f"{parts[0]}." in name and ".lora_A." in name:
                    for part in parts[1:]:
                        weights[name.replace(parts[0], part)].copy_(weight)
    adapted.save_pretrained(folder)
    path = folder / "adapter_config.json"
    saved = json.loads(path.read_text()) | {"base_model_name_or_path": "tiny-random"}   # no path of this machine
    path.write_text(json.dumps(saved, indent=2) + "\n")
    loaded = PeftModel.from_pretrained(adapted.unload(), folder, is_trainable=True)
    if case.layout and case.layout.fused:    # PEFT's own names of the modules that transformers makes of hub files stay as they are
        save_file(case.layout.apply(load_file(folder / "adapter_model.safetensors")), folder / "adapter_model.safetensors")
        saved["target_modules"] = sorted({name.split(".")[-3] for name in load_file(folder / "adapter_model.safetensors")})
        path.write_text(json.dumps(saved, indent=2) + "\n")
    return loaded.eval()


def loss_sum(logits_TV: torch.Tensor, labels_T: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Sum of next-token losses of one document, and how many there are."""
    targets = labels_T[1:]
    total = torch.nn.functional.cross_entropy(logits_TV[:-1], targets, ignore_index=-100, reduction="sum")
    return total, int((targets != -100).sum())


def make_golden(adapted: PeftModel, ids_BT: torch.Tensor, labels_BT: torch.Tensor, documents: list[int] | None) -> dict:
    """The tensors of a golden file. With `documents` (offsets, B=1) each is computed alone and laid side by side."""
    adapted.zero_grad()
    if documents is None:
        rows = [(ids_BT[b], labels_BT[b]) for b in range(ids_BT.shape[0])]
    else:
        rows = [(ids_BT[0, a:b], labels_BT[0, a:b]) for a, b in zip(documents, documents[1:])]
    logits = [adapted(input_ids=ids[None], use_cache=False).logits[0] for ids, _ in rows]
    sums, counts = zip(*(loss_sum(one, labels) for one, (_, labels) in zip(logits, rows)))
    loss = torch.stack(sums).sum() / sum(counts)
    loss.backward()
    golden = {"input_ids": ids_BT, "labels": labels_BT, "loss": loss.detach()}
    golden["logits"] = (torch.stack(logits) if documents is None else torch.cat(logits)[None]).detach()
    if documents is not None:
        golden["documents"] = torch.tensor(documents, dtype=torch.int64)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            assert weight.grad is not None and weight.grad.abs().sum() > 0, f"{name} has no gradient"
            golden["grad." + name.replace(".default.", ".")] = weight.grad.clone()
    return {name: tensor.contiguous() for name, tensor in golden.items()}


def make_balancing_golden(adapted: PeftModel, case: Case) -> dict:
    """A batch with transformers' auxiliary loss beside the mean loss: both are over all rows at once."""
    ids, labels = random_tokens(case, adapted.config.vocab_size, (2, case.length))
    adapted.zero_grad()
    output = adapted(input_ids=ids, use_cache=False, output_router_logits=True)
    sums, counts = zip(*(loss_sum(one, row) for one, row in zip(output.logits, labels)))
    assert output.aux_loss.grad_fn is not None, f"{case.name}: the auxiliary loss has no gradient"
    loss = torch.stack(sums).sum() / sum(counts) + case.load_balancing * output.aux_loss
    loss.backward()
    golden = {"input_ids": ids, "labels": labels, "logits": output.logits, "loss": loss, "load_balancing": torch.tensor([case.load_balancing])}
    golden |= {"grad." + name.replace(".default.", "."): weight.grad for name, weight in adapted.named_parameters() if "lora_" in name}
    return {name: tensor.detach().clone().contiguous() for name, tensor in golden.items()}


def random_tokens(case: Case, vocabulary: int, shape: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    random = generator_of(f"{case.name}/tokens/{shape}")
    ids = torch.randint(0, vocabulary, shape, generator=random)
    unsupervised = torch.rand(shape, generator=random) < 0.4
    return ids, ids.masked_fill(unsupervised, -100)


def write_goldens(adapted: PeftModel, case: Case, folder: pathlib.Path) -> None:
    vocabulary = adapted.config.vocab_size
    ids, labels = random_tokens(case, vocabulary, (3, case.length))
    golden = make_golden(adapted, ids, labels, None)
    in_files = lambda tensors: case.layout.apply(tensors, sum_a=True) if case.layout and case.layout.fused else tensors
    save_file(in_files(golden), folder / "golden.safetensors")
    offsets = [0]
    for length in case.document_lengths:
        offsets.append(offsets[-1] + length)
    ids, labels = random_tokens(case, vocabulary, (1, offsets[-1]))
    save_file(in_files(make_golden(adapted, ids, labels, offsets)), folder / "documents.safetensors")
    if case.load_balancing:
        save_file(make_balancing_golden(adapted, case), folder / "balancing.safetensors")
    assert_well_conditioned(adapted, golden, case.name)     # last: it leaves the model in double


def assert_well_conditioned(adapted: PeftModel, golden: dict, case_name: str) -> None:
    """The reference's own float32 rounding stays far below conform's tolerances, or a failure would mean nothing; how far differs by a few times between processors."""
    exact = make_golden(adapted.double(), golden["input_ids"], golden["labels"], None)
    for name in golden:
        if name == "logits" or name.startswith("grad."):
            ours, theirs = golden[name].double(), exact[name].double()
            error = float((ours - theirs).square().sum() / (ours.square().sum() + theirs.square().sum()))
            bound = (1e-10 if name == "logits" else 1e-9) / 30
            assert error < bound, f"{case_name}: {name} has error {error:.1e} in float32 against {bound:.0e}: choose smaller weights"


def make_case(case: Case, out: pathlib.Path) -> None:
    """out/<case>/: model/, adapter/, golden.safetensors (a batch), documents.safetensors (packed documents)."""
    folder = out / case.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = write_model(case, folder / "model")
    write_goldens(attach_adapter(model, case, folder / "adapter"), case, folder)
