"""SmolLM2 in the forms that vLLM serves on a CPU: the log-probabilities of a text in vLLM are those of graft's own reader.

  vllm_forms.py --graft PROGRAM --vllm PYTHON [FORM...]      see tests/engines/run

vLLM computes in float16 here: in bfloat16, its choice for the compressed-tensors forms, it is 0.3 nats a token away from itself in float16 on this model. W8A8 rounds activations to
8 bits, which graft's reader does not.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = ("The capital of France is Paris. A company that routes customer tickets with a small language model must know that the model which is served is the one that was trained, "
        "and that nothing was lost on the way from the trainer to the engine.")
BOUNDS = {"compressed-tensors:w4a16": 0.02, "compressed-tensors:w4a16-asym": 0.02, "gptq": 0.02, "awq": 0.02, "compressed-tensors:w8a8": 0.5}     # mean |difference| of a token, nats


def serve(folder: str, ids: list[int]):
    """In vLLM's own environment: prints the log-probability of every token but the first."""
    import os
    os.environ.update(VLLM_CPU_KVCACHE_SPACE="1", VLLM_ENABLE_V1_MULTIPROCESSING="0", HF_HUB_OFFLINE="1")
    from vllm import LLM, SamplingParams
    engine = LLM(folder, enforce_eager=True, dtype="float16", max_model_len=256, max_num_seqs=2)
    answer = engine.generate([{"prompt_token_ids": ids}], SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=1))[0]
    print("LOGPROBS " + json.dumps([step[token].logprob for step, token in zip(answer.prompt_logprobs[1:], ids[1:])]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graft", required=True)
    parser.add_argument("--vllm", required=True)
    parser.add_argument("forms", nargs="*")
    options = parser.parse_args()
    import torch
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    failed = False
    for form in options.forms or list(BOUNDS):
        with tempfile.TemporaryDirectory(prefix="graft_vllm_") as name:
            folder = pathlib.Path(name)
            subprocess.run([options.graft, "export", str(MODEL), "--to", form, "--out", str(folder / "model")], check=True, capture_output=True)
            ids = Tokenizer.from_file(str(folder / "model/tokenizer.json")).encode(TEXT).ids
            (folder / "ids.json").write_text(json.dumps(ids))
            subprocess.run([options.graft, "logits", str(folder / "model"), "--tokens", str(folder / "ids.json"), "--out", str(folder / "logits.safetensors")], check=True, capture_output=True)
            ours = load_file(folder / "logits.safetensors")["logits"].log_softmax(-1)[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
            done = subprocess.run([options.vllm, __file__, "serve", str(folder / "model"), json.dumps(ids)], capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith("LOGPROBS ")]
        if not lines:
            print(f"FAILED {form}: vLLM does not serve it:\n{done.stderr[-2000:]}", flush=True)
            failed = True
            continue
        theirs = torch.tensor(json.loads(lines[0].split(" ", 1)[1]))
        difference = (ours - theirs).abs()
        passed = difference.mean().item() <= BOUNDS.get(form, 0.02)
        failed = failed or not passed
        print(f"{'PASSED' if passed else 'FAILED'} {form}: mean log-probability {ours.mean():.4f} in graft, {theirs.mean():.4f} in vLLM; mean |difference| {difference.mean():.4f}, "
              f"largest {difference.max():.4f}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], json.loads(sys.argv[3]))
    else:
        main()
