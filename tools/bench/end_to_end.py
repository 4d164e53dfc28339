#!/usr/bin/env python3
"""graft against transformers + PEFT: LoRA r16 on all linear layers of SmolLM2-135M, bf16, the same token ids and threads.

  tools/bench/end_to_end [--rounds 5] [--steps 6] [--threads 2] [--only 512,2048,banking77] [--results FILE] [--json]
  tools/bench/end_to_end --random qwen3-8b|qwen3-30b-a3b|gpt-oss-20b|deepseek-v2-lite|qwen3-0.6b [--layers N] [--only 2048] [--device cuda:0] [--steps 6] [--rows 1] [--form Q4_K_M] [--peft]

The last row of 512 and 2048 is the time that torch.mm takes for a step's products alone (matrix_products.py).
The two alternate; PEFT runs with and without checkpointing, and its better figure of each kind counts. Both read the same bf16
safetensors directory, made once from the Q4_1 file; a further row is graft on the Q4_1 file itself. Measured from outside, the same
way for both: a step ends when its line appears; the first step counts from the start of the process; memory is the peak
resident set. tokens/s is the median over steps but the first. banking77: rows of the train file in batches of 16, which PEFT's collator pads.
--results keeps the rounds in a file: those already there are not run again, so that a busy machine can
be measured in its quiet hours. Needs tools/setup --tests and a release build. --json ends with one line: {"tokens_per_s_ratio", "peak_memory_ratio", "first_step_ratio"}
(graft over PEFT, at 512 tokens), and all figures.
--random: graft alone on random weights of that shape, made here (no download; with --layers only so many layers): tokens/s, peak memory (on a GPU the tensors' there), the
start to the first step, and the memory that plan says. --rows: so many documents of that length a step. --form: also on the same base as a GGUF file of that form, which
graft exports first; --peft: transformers + PEFT on the same base, with and without checkpointing. All of them alternate.
"""
import argparse
import csv
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from peer_inputs import MODEL, ROOT, peer_row

SHARED = pathlib.Path(os.environ.get("GRAFT_SHARED", ROOT.parent / "shared"))
RANK, ALPHA, LEARNING_RATE = 16, 32, 2e-4
BATCH_ROWS = 16


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- the same inputs for both ----------------------------------------------------------------------------------------

def graft_lines(graft: str, command: list[str], rows: list, work: pathlib.Path) -> list:
    """Runs a graft command that maps lines to lines of JSON."""
    path = work / "lines.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = subprocess.run([graft, *command, "--file", str(path)], stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def rows_of_length(graft: str, length: int, count: int, work: pathlib.Path) -> tuple[list[dict], list[list[dict]]]:
    """(rows of format text, the peer's steps): documents of exactly `length` tokens with their end token, one a step."""
    tickets = (ROOT / "recipes/data/support_tickets/train.jsonl").read_text().splitlines()
    text = "\n\n".join(json.loads(line)["text"] for line in tickets)
    ids = graft_lines(graft, ["tokenize", str(MODEL)], [{"text": text}], work)[0]
    chunks = [ids[i:i + length - 1] for i in range(0, len(ids) - length, length - 1)]
    texts = graft_lines(graft, ["tokenize", str(MODEL), "--decode"], [{"ids": chunk} for chunk in chunks], work)
    whole = graft_lines(graft, ["tokenize", str(MODEL), "--special"], [{"text": text} for text in texts], work)
    end = graft_lines(graft, ["tokenize", str(MODEL)], [{"text": "<|im_end|>"}], work)[0]
    # A chunk whose text tokenises differently at its borders has another length, and is left out.
    kept = [(text, (again + end)[:length]) for text, chunk, again in zip(texts, chunks, whole) if again[:length - 1] == chunk][:count]
    if len(kept) < count:
        raise SystemExit(f"end_to_end: expected {count} rows of {length} tokens, got {len(kept)}")
    return [{"text": text} for text, _ in kept], [[{"ids": ids, "labels": ids}] for _, ids in kept]


def banking_rows(graft: str, steps: int, work: pathlib.Path) -> tuple[list[dict], list[list[dict]]]:
    with open(SHARED / "data/banking77/banking_data/train.csv", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    picked = table[::len(table) // (steps * BATCH_ROWS)][:steps * BATCH_ROWS]
    rows = [{"messages": [{"role": "system", "content": "Name the intent of the customer's message."},
                          {"role": "user", "content": row["text"]}, {"role": "assistant", "content": row["category"]}]} for row in picked]
    encoded = graft_lines(graft, ["render", str(MODEL)], rows, work)
    peer = [peer_row(one) for one in encoded]
    return rows, [peer[i:i + BATCH_ROWS] for i in range(0, len(peer), BATCH_ROWS)]


def prepared_base(folder: pathlib.Path) -> pathlib.Path:
    """In a process of its own: a child's peak resident set is never below its parent's at the start, and this process must stay small."""
    code = "import pathlib, sys; from peer_inputs import model_directory; model_directory(pathlib.Path(sys.argv[1]), 'bfloat16')"
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, cwd=pathlib.Path(__file__).parent)
    return folder


# --- one run ---------------------------------------------------------------------------------------------------------

def measure(command: list[str], lines_of, tokens: int, rows: int) -> dict:
    """Runs the command; lines_of(process) yields one item when a step has ended. tokens, rows: of one step."""
    started, ends, items = time.monotonic(), [], []
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
        for item in lines_of(process):
            ends.append(time.monotonic())
            items.append(item)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0 or len(ends) < 2:
            errors.seek(0)
            raise SystemExit(f"end_to_end: {' '.join(command)} ended with {process.returncode} after {len(ends)} steps\n{errors.read()[-3000:]}")
    seconds = statistics.median(b - a for a, b in zip(ends, ends[1:]))
    return {"tokens_per_s": tokens / seconds, "rows_per_s": rows / seconds, "peak_gib": usage.ru_maxrss / 2**20, "first_step_s": ends[0] - started,
            "device_gib": json.loads(items[-1]).get("device_gib", 0.0) if isinstance(items[-1], str) else 0.0}


def run_peft(model: pathlib.Path, steps: list, checkpointing: bool, threads: int, work: pathlib.Path, device: str = "cpu") -> dict:
    job = {"model": str(model), "dtype": "bfloat16", "threads": threads, "rank": RANK, "alpha": ALPHA, "learning_rate": LEARNING_RATE,
           "checkpointing": checkpointing, "device": device, "steps": steps}
    (work / "job.json").write_text(json.dumps(job))
    command = [sys.executable, str(ROOT / "tools/bench/peft_peer.py"), str(work / "job.json")]
    return measure(command, lambda process: (line for line in process.stdout if line.startswith('{"step"')), *step_size(steps))


def step_size(steps: list) -> tuple[int, int]:
    return sum(len(row["ids"]) for step in steps for row in step) // len(steps), len(steps[0])


def write_recipe(model: pathlib.Path, rows: list, steps: list, threads: int, work: pathlib.Path, device: str = "cpu", exports: tuple = ()) -> pathlib.Path:
    tokens, batch_rows = step_size(steps)
    (work / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "accept_licence": "unknown", "model": {"base": str(model), "compute": "bfloat16"}, "adapter": {"rank": RANK, "alpha": ALPHA},
        "data": {"train": [{"path": "rows.jsonl", "format": "text" if "text" in rows[0] else "messages"}],
                 "max_tokens": max(1024, tokens), "pack_tokens": max(2048, tokens)},
        "optimizer": {"learning_rate": LEARNING_RATE, "batch_rows": batch_rows},
        "schedule": {"steps": len(steps), "shape": "constant", "warmup": 0},
        "run": {"out": str(work / "run"), "threads": threads, "device": device, "checkpoint_every": 100000, "evaluate_every": 100000},
        "export": [{"format": form} for form in exports]}
    (work / "recipe.yaml").write_text(json.dumps(recipe))     # JSON is YAML
    subprocess.run(["rm", "-rf", str(work / "run")], check=True)
    return work / "recipe.yaml"


def run_graft(graft: str, model: pathlib.Path, rows: list, steps: list, threads: int, work: pathlib.Path, device: str = "cpu") -> dict:
    tokens, batch_rows = step_size(steps)
    recipe = write_recipe(model, rows, steps, threads, work, device)
    metrics = work / "run" / "metrics.jsonl"

    def lines_of(process):
        threading.Thread(target=process.stdout.read, daemon=True).start()
        seen = 0
        while True:
            # Look without waiting for the child: wait4 below must get its resources.
            ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
            found = metrics.read_bytes().count(b'"loss":') if metrics.exists() else 0
            yield from range(seen, found)
            seen = found
            if ended:
                return
            time.sleep(0.002)

    found = measure([graft, "train", str(recipe), "--quiet"], lines_of, tokens, batch_rows)
    manifest = json.loads((work / "run/manifest.json").read_text())
    return found | {"device_gib": manifest.get("peak_device_memory_bytes", 0) / 2**30}


def run_products(tokens: int, threads: int) -> dict:
    """The step's products alone by torch.mm, as if they were a step."""
    done = subprocess.run([sys.executable, str(ROOT / "tools/bench/matrix_products.py"), str(tokens), str(threads)], stdout=subprocess.PIPE, text=True, check=True)
    return {"tokens_per_s": tokens / json.loads(done.stdout)["seconds"], "rows_per_s": 0.0, "peak_gib": 0.0, "first_step_s": 0.0, "device_gib": 0.0}


# --- the table -------------------------------------------------------------------------------------------------------

def median_of(results: list[dict]) -> dict:
    return {key: statistics.median(result[key] for result in results) for key in results[0]}


def compare(kind: str, found: dict[str, list[dict]]) -> dict:
    """Prints the table of one kind; returns the ratios of graft to the better PEFT."""
    middle = {name: median_of(results) for name, results in found.items()}
    print(f"\n{kind}: medians of {len(found['graft'])} rounds (range of tokens/s)")
    print(f"{'':28}{'tokens/s':>10}{'range':>18}{'rows/s':>9}{'peak GiB':>10}{'first step s':>14}")
    for name, row in middle.items():
        speeds = [result["tokens_per_s"] for result in found[name]]
        print(f"{name:28}{row['tokens_per_s']:10.1f}{min(speeds):9.1f} -{max(speeds):7.1f}{row['rows_per_s']:9.2f}{row['peak_gib']:10.2f}{row['first_step_s']:14.1f}")
    peers = [row for name, row in middle.items() if name.startswith("PEFT")]
    ours = middle["graft"]
    ratios = {"tokens_per_s_ratio": ours["tokens_per_s"] / max(peer["tokens_per_s"] for peer in peers),
              "peak_memory_ratio": ours["peak_gib"] / min(peer["peak_gib"] for peer in peers),
              "first_step_ratio": ours["first_step_s"] / min(peer["first_step_s"] for peer in peers)}
    if PRODUCTS in middle:
        ratios["share_of_products_rate"] = ours["tokens_per_s"] / middle[PRODUCTS]["tokens_per_s"]
    print("graft over the better PEFT: " + ", ".join(f"{key.removesuffix('_ratio')} {value:.2f}" for key, value in ratios.items()), flush=True)
    return {"ratios": ratios, "medians": middle}


def exported_base(arguments: argparse.Namespace, rows: list, steps: list, work: pathlib.Path) -> pathlib.Path:
    """The random base as a GGUF file: graft's export after one step, in which the adapter moves next to nothing."""
    recipe = write_recipe(work / "base", rows[:arguments.rows], steps[:1], arguments.threads, work, exports=(f"gguf:{arguments.form}",))
    subprocess.run([arguments.graft, "train", str(recipe), "--quiet"], stdout=subprocess.DEVNULL)   # 1 where the certificate finds random weights changed
    files = list((work / "run/exports").rglob("*.gguf"))
    if len(files) != 1:
        raise SystemExit(f"end_to_end: expected one GGUF file below {work / 'run/exports'}, got {len(files)}")
    return files[0].rename(work / f"base.{arguments.form}.gguf")


def planned_gib(graft: str, recipe: pathlib.Path) -> float:
    done = subprocess.run([graft, "plan", str(recipe), "--json", "--no-probe", "--quiet"], stdout=subprocess.PIPE, text=True)
    plan = json.loads(done.stdout.splitlines()[-1])
    return plan.get("device_memory_bytes", plan["memory_bytes"]) / 2**30


def run_random(arguments: argparse.Namespace) -> None:
    """In a process of its own the model is made, for the same reason as prepared_base."""
    length = int(arguments.only.split(",")[0]) if arguments.only != DEFAULT_KINDS else 2048
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as folder:
        work = pathlib.Path(folder)
        say(f"making random weights in the shape of {arguments.random}")
        code = "import pathlib, sys; from random_model import write_random_model; print(write_random_model(pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))"
        made = subprocess.run([sys.executable, "-c", code, str(work / "base"), arguments.random, str(arguments.layers)], stdout=subprocess.PIPE, text=True, check=True, cwd=pathlib.Path(__file__).parent)
        # A byte is a token.
        rows = [{"text": "".join(chr(97 + (17 * row + index * index) % 26) for index in range(length - 1))} for row in range(arguments.steps * arguments.rows)]
        steps = [[{"ids": [(17 * row + index * index) % 26 for index in range(length)], "labels": [0] * length} for row in range(arguments.rows)] for _ in range(arguments.steps)]
        bases = {"bf16": work / "base"}
        if arguments.form:
            say(f"exporting it as {arguments.form}")
            bases[arguments.form] = exported_base(arguments, rows, steps, work)
        runs = {name: lambda base=base: run_graft(arguments.graft, base, rows, steps, arguments.threads, work, arguments.device) for name, base in bases.items()}
        if arguments.peft:
            for name, checkpointing in (("PEFT", False), ("PEFT, checkpointing", True)):
                runs[name] = lambda checkpointing=checkpointing: run_peft(work / "base", steps, checkpointing, arguments.threads, work, arguments.device)
        found: dict[str, list[dict]] = {name: [] for name in runs}
        for _ in range(arguments.rounds):
            for name, run in runs.items():
                try:
                    found[name].append(run())
                except SystemExit as error:   # a peer without memory is a result too
                    if not name.startswith("PEFT"):
                        raise
                    say(str(error)[-300:])
        planned = {name: planned_gib(arguments.graft, write_recipe(base, rows, steps, arguments.threads, work, arguments.device)) for name, base in bases.items()}
    name = arguments.random + (f", {arguments.layers} layers" if arguments.layers else "")
    print(f"{name}: {int(made.stdout) / 1e9:.2f} billion random parameters, {arguments.rows} x {length} tokens a step on {arguments.device}, medians of {arguments.rounds} rounds")
    key = "peak_gib" if arguments.device == "cpu" else "device_gib"
    for form, results in found.items():
        if not results:
            print(f"{form}: failed")
            continue
        middle, speeds = median_of(results), [result["tokens_per_s"] for result in results]
        plan = f" (plan: {planned[form]:.2f})" if form in planned else ""
        print(f"{form}: tokens/s {middle['tokens_per_s']:.1f} ({min(speeds):.1f} to {max(speeds):.1f}), peak {middle[key]:.2f} GiB{plan}, first step after {middle['first_step_s']:.1f} s")
    if arguments.json:
        print(json.dumps({"random": arguments.random, "layers": arguments.layers, "device": arguments.device, "rows": arguments.rows, "length": length, "planned_gib": planned}
                         | {form: median_of(results) for form, results in found.items() if results}))


DEFAULT_KINDS = "512,2048,banking77"
PRODUCTS = "torch.mm alone"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    built = [path for path in (ROOT / "build/release/graft", ROOT / "build/cpu/graft") if path.exists()]   # by hand; by tools/quickstart
    parser.add_argument("--graft", default=str(built[0] if built else ROOT / "build/release/graft"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", default=DEFAULT_KINDS)
    parser.add_argument("--results", type=pathlib.Path, help="rounds done so far; each new one is added")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--random", default="")
    parser.add_argument("--layers", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=1, help="with --random: documents a step")
    parser.add_argument("--peft", action="store_true", help="with --random: also the peer")
    parser.add_argument("--form", default="", help="with --random: also a GGUF base of this form")
    arguments = parser.parse_args()
    if arguments.random:
        return run_random(arguments)
    kinds = arguments.only.split(",")

    with tempfile.TemporaryDirectory(prefix="graft-bench-") as folder:
        work = pathlib.Path(folder)
        say("preparing the bf16 base and the rows")
        base = prepared_base(work / "base")
        inputs = {kind: banking_rows(arguments.graft, arguments.steps, work) if kind == "banking77" else
                  rows_of_length(arguments.graft, int(kind), arguments.steps, work) for kind in kinds}
        runs = {}
        for kind, (rows, steps) in inputs.items():
            runs[kind] = {
                "graft": lambda rows=rows, steps=steps: run_graft(arguments.graft, base, rows, steps, arguments.threads, work),
                "PEFT": lambda steps=steps: run_peft(base, steps, False, arguments.threads, work),
                "PEFT, checkpointing": lambda steps=steps: run_peft(base, steps, True, arguments.threads, work),
                "graft on the Q4_1 file": lambda rows=rows, steps=steps: run_graft(arguments.graft, MODEL, rows, steps, arguments.threads, work),
            }
            if kind.isdigit():   # all tokens are supervised there, so that the head has them all
                runs[kind][PRODUCTS] = lambda kind=kind: run_products(int(kind), arguments.threads)
        found = {kind: {name: [] for name in runs[kind]} for kind in kinds}
        if arguments.results and arguments.results.exists():
            found |= json.loads(arguments.results.read_text())
        for number in range(arguments.rounds):
            for kind in kinds:
                for name, run in runs[kind].items():
                    if len(found[kind][name]) > number:
                        continue
                    found[kind][name].append(run())
                    if arguments.results:
                        arguments.results.write_text(json.dumps(found))
                    say(f"round {number + 1}/{arguments.rounds} {kind} {name}: {found[kind][name][-1]['tokens_per_s']:.1f} tokens/s")
        compared = {kind: compare(f"{kind} tokens a step" if kind.isdigit() else f"{kind}, {BATCH_ROWS} rows a step", found[kind]) for kind in kinds}
    if arguments.json:
        print(json.dumps(compared[kinds[0]]["ratios"] | {"of": kinds[0], "all": compared}))


if __name__ == "__main__":
    main()
