"""Every export of a run: size, KL, accuracy and share of the fine-tune's gain, from the certificates of the run, and from real engines where they are asked for.

  tools/bench/export_table RUN [--engines] [--program build/release/graft]

A run's exports are made anew, with others, by `graft train RECIPE --out RUN --resume --set 'export=[...]'`. Reader: graft's own is float32 on the exported weights; an
engine is `served` where its quantised kernels ran and `decoded only` where it computes on decoded weights (transformers).
"""
import argparse
import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def size_of(path: pathlib.Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size


def row(certificate: dict, path: pathlib.Path, mode: str) -> str:
    task, gain = certificate["task"], certificate["share_of_gain_kept"]

    def share(key):
        return "" if gain.get(key) is None else f"{gain[key]:.3f}"

    accuracy = f"{100 * task['exported']:.1f}" if "exported" in task else ""
    return (f"| `{certificate['format']}` | {size_of(path) / 2**20:.1f} | {certificate['mean_kl']:.1e} | {certificate['p99_kl']:.1e} | {100 * certificate['top1_agreement']:.1f} | "
            f"{accuracy} | {share('loss')} | {share('task')} | {certificate['reader']}, {mode} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--engines", action="store_true", help="also verify each export by the engine that serves it: llama.cpp, transformers")
    parser.add_argument("--program", default=str(ROOT / "build/release/graft"))
    options = parser.parse_args()
    certificates = [json.loads(path.read_text()) for path in sorted((options.run / "certificates").glob("*.json"))]
    if not certificates:
        parser.error(f"expected certificates in {options.run}, got none: name exports in the recipe, with verify")
    first = certificates[0]["task"]
    print(f"{certificates[0]['rows']} rows of {certificates[0]['split']}; loss {first['loss']['base']:.3f} before training, {first['loss']['trained']:.4f} after"
          + (f"; accuracy {100 * first['base']:.1f} % before, {100 * first['trained']:.1f} % after" if "trained" in first else "") + "\n")
    print("| export | MiB | mean KL | p99 KL | same top-1, % | accuracy, % | share of gain: loss | task | reader |\n|---|---|---|---|---|---|---|---|---|", flush=True)
    for certificate in certificates:
        path = options.run / "exports" / certificate["artifact"]
        print(row(certificate, path, "decoded only"), flush=True)
        if not options.engines:
            continue
        engine = "llama.cpp" if certificate["format"].startswith("gguf") else "transformers"
        done = subprocess.run([options.program, "verify", str(options.run), str(path), "--engine", engine, "--max-mean-kl", "10", "--json"], capture_output=True, text=True,
                              env={"GRAFT_PYTHON": str(ROOT / ".deps/python/bin/python")} | os.environ)
        if done.returncode not in (0, 1):
            print(f"| `{certificate['format']}` | | | | | | | | {engine} does not load it: {done.stderr.strip().splitlines()[-1][:160]} |", flush=True)
            continue
        own = json.loads(done.stdout.strip().splitlines()[-1]) | {"format": certificate["format"]}
        print(row(own, path, "served" if engine == "llama.cpp" else "decoded only"), flush=True)


if __name__ == "__main__":
    main()
