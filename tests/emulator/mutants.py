#!/usr/bin/env python3
"""Plants one fault at a time in device code and says which of them the emulator's tests find.

  tests/emulator/mutants.py [--only STEM] [--jobs 2] [--sample N] [--out FILE] [--build build/release]

A mutant drops a barrier, a wait or a commit, shifts one index by one, or swaps one sign of a kernel. All mutants of a file are compiled into one program,
where GRAFT_MUTANT says which is on (-1: none, and then the tests must pass); a line that cannot be compiled so is compiled for each of its mutants. At least
90 % of each file's mutants must be found, and each that is not must be in surviving_mutants.txt with the reason why it computes the same. Needs the objects
of a release build (ninja -C build/release test_emulator).
"""
import argparse
import concurrent.futures
import os
import pathlib
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parents[2]
# File whose lines change -> (the .cu files that include it, the tests that must find it).
ATTENTION = "kernels/attention/attention_bfloat16.cu"
ATTENTION_CASES = "head_80|unequal_small|documents|grouped_queries|window_over_tiles|prefix_and_window|all_at_once|selected_keys|head_256|prefix_before_a_long_document"
LORA = [f"kernels/lora_linear/lora_{part}.cu" for part in ("expand", "expand_backward", "factors", "shrink", "shrink_backward")]
EXPERTS = [f"kernels/experts/expert_{part}.cu" for part in ("factors", "product", "product_backward")]
EXPERT_CASES = "Cuda/ExpertKernels.InBfloat16/*"
DELTA = [f"kernels/delta_attention/delta_{part}.cu" for part in ("gradients", "outputs", "states", "rows")]
DELTA_TESTS = ":".join(f"Cuda/DeltaAttention.In{case}" for case in ("Float32/two_documents", "Float32/channel_two_documents", "Float32/grouped_heads", "Float32/tiled_heads",
                                                                    "Float32/eight_taps", "Float32/large_keys", "Float32/small_rows", "Float32/channel_three_chunks", "Bfloat16/two_chunks", "Bfloat16/channel_two_documents"))
NORMS = ["kernels/rms_norm/rms_norm.cu", "kernels/layer_norm/layer_norm.cu"]
TARGETS = {
    "kernels/attention/attention_forward_kernel.cuh": ([ATTENTION], "Cuda/Attention.*"),
    "kernels/attention/attention_backward_kernel.cuh": ([ATTENTION], "Cuda/Attention.*"),
    "kernels/attention/attention_scores.cuh": ([ATTENTION], "Cuda/Attention.*"),
    "kernels/attention/attention_cache.cu": (["kernels/attention/attention_cache.cu"], "Cuda/CachedAttention.InBfloat16/*"),
    "kernels/attention/attention_heads.cu": (["kernels/attention/attention_heads.cu"], "AttentionHeads*"),
    "kernels/norm_rows/norm_kernels.cuh": (NORMS, "RmsNorm*:LayerNorm*"),
    "kernels/gated_activation/gated_activation.cu": (["kernels/gated_activation/gated_activation.cu"], "GatedActivation*"),
    "kernels/adamw/adamw.cu": (["kernels/adamw/adamw.cu"], "AdamW*"),
    "kernels/linear_cross_entropy/cross_entropy_rows.cu": (["kernels/linear_cross_entropy/cross_entropy_rows.cu"], "CrossEntropyRows*"),
    "kernels/linear_head/logit_values.cuh": (["kernels/linear_cross_entropy/cross_entropy_rows.cu"], "CrossEntropyRows*"),
    "kernels/linear_kl/kl_rows.cu": (["kernels/linear_kl/kl_rows.cu"], "KlRows*"),
    "kernels/linear_kl/divergence.cuh": (["kernels/linear_kl/kl_rows.cu"], "KlRows*"),
    **{source: ([source], "*Lora*") for source in LORA},
    "kernels/lora_linear/lora_tiles.cuh": (LORA, "*Lora*"),
    "kernels/lora_linear/lora_sums.cuh": (LORA, "*Lora*"),
    "kernels/quantized/block_decoders.h": (["kernels/quantized_product/dequantize_matrix.cu"], "*QuantizedForms.AreDecoded*"),
    "kernels/quantized_product/global_block.cuh": (["kernels/quantized_product/dequantize_matrix.cu"], "*QuantizedForms.AreDecoded*"),
    "kernels/quantized_product/dequantize_matrix.cu": (["kernels/quantized_product/dequantize_matrix.cu"], "*QuantizedForms.AreDecoded*"),
    "kernels/quantized_product/quantized_product_kernel.cuh": ([f"kernels/quantized_product/quantized_product_{t}.cu" for t in ("float32", "bfloat16")], "QuantizedProducts/0.*:QuantizedProducts/1.*"),
    **{source: ([source], EXPERT_CASES) for source in EXPERTS},
    "kernels/experts/expert_combine.cu": (["kernels/experts/expert_combine.cu"], EXPERT_CASES),
    "kernels/experts/expert_tiles.cuh": (EXPERTS, EXPERT_CASES),
    "kernels/router/router.cu": (["kernels/router/router.cu"], "*Router*"),
    "kernels/router/expert_lists.cu": (["kernels/router/expert_lists.cu"], "ExpertLists*"),
    "kernels/gated_activation/activation_values.cuh": (["kernels/gated_activation/gated_activation.cu"], "GatedActivation*"),
    "kernels/cuda/activations.cuh": (["tests/emulator/activations_test.cpp"], "Activations*"),
    "kernels/cuda/matrix_part.cuh": (LORA, "*Lora*"),
    **{source: ([source], DELTA_TESTS) for source in DELTA},
    "kernels/delta_attention/delta_kernels.cuh": ([DELTA[3]], DELTA_TESTS),
    **{f"kernels/delta_attention/delta_{part}.cuh": ([DELTA[1]], DELTA_TESTS) for part in ("solve", "ends")},
    **{f"kernels/delta_attention/delta_{part}.cuh": ([DELTA[0]], DELTA_TESTS) for part in ("chunk", "slices")},
    "kernels/cuda/tile.cuh": (["tests/emulator/matrix_test.cpp"], "MatrixOf*"),
    "kernels/cuda/tile_product.cuh": (LORA + EXPERTS, f"*Lora*:{EXPERT_CASES}"),
    "kernels/cuda/reduce.cuh": (["kernels/linear_cross_entropy/cross_entropy_rows.cu"], "CrossEntropyRows*"),
    "kernels/cuda/rows.cuh": (NORMS, "RmsNorm*:LayerNorm*"),
    "kernels/cuda/row_values.cuh": (["kernels/linear_cross_entropy/cross_entropy_rows.cu"], "CrossEntropyRows*"),
    "kernels/cuda/exponential_sum.cuh": (["kernels/linear_kl/kl_rows.cu"], "KlRows*"),
}
# Calls, and which of their arguments are indices or addresses.
INDICES = {"load": [0], "store": [0], "read": [0], "write": [0], "read_pack": [0], "write_pack": [0], "index": [0, 1], "load_a": [1, 2], "load_b": [2, 3], "at": [0, 1], "copy_async": [1, 2]}


@dataclass(frozen=True)
class Mutant:
    file: str
    line: int          # from 1
    kind: str
    before: str
    after: str
    place: int         # among mutants of this file that read the same, from 1
    switched: tuple[tuple[int, str], ...]   # the same as insertions into `before` (position, text with {k} for its number) that a number turns on

    def key(self) -> str:
        return f"{self.file} | {self.kind} {self.place} | {self.before.strip()} => {self.after.strip()}"


def arguments(line: str, open_at: int) -> list[tuple[int, int]]:
    """Spans of the arguments of the call whose '(' stands at open_at; none where it does not end on this line."""
    depth, begin, spans = 0, open_at + 1, []
    for at in range(open_at, len(line)):
        if line[at] in "([{":
            depth += 1
        elif line[at] in ")]}":
            depth -= 1
            if depth == 0:
                return spans + [(begin, at)]
        elif line[at] == "," and depth == 1:
            spans.append((begin, at))
            begin = at + 1
    return []


def end_of_expression(line: str, at: int) -> int:
    """Where the expression that begins at `at` ends: the ';' or ',' behind it, or the bracket that closes around it."""
    depth = 0
    for position in range(at, len(line)):
        if line[position] in "([{":
            depth += 1
        elif line[position] in ")]}":
            depth -= 1
        if depth < 0 or (depth == 0 and line[position] in ";,"):
            return position
    return len(line)


def mutants_of(file: str) -> list[Mutant]:
    found, alike = [], {}
    lines = (ROOT / file).read_text().splitlines()
    device = True
    for number, whole in enumerate(lines, 1):
        if whole.startswith(("template <typename Function>", "template <typename Element, typename Function>")) or "for_attention_sizes" in whole or "launch_kernels" in whole:
            device = False                           # host code: what chooses and launches
        if whole.startswith(("GRAFT_DEVICE", "GRAFT_KERNEL")):
            device = True
        code = whole.split("//")[0].rstrip()
        if not device or not code or code.startswith(("#", "template", "static_assert", "using", "namespace", "constexpr")) or "static constexpr" in code or "LAUNCH" in code or "launch" in code:
            continue

        def add(kind: str, after: str, *switched: tuple[int, str]) -> None:
            if after == code or any(mutant.line == number and mutant.after == after for mutant in found):
                return
            mutant = Mutant(file, number, kind, code, after, alike.get((code, after), 0) + 1, switched)
            alike[(code, after)] = mutant.place
            found.append(mutant)

        for match in re.finditer(r"\b(block_barrier|warp_barrier|copy_commit|copy_wait<\d+>)\(\);", code):
            add("dropped", code[:match.start()] + ";" + code[match.end():], (match.start(), "if (!planted({k})) "))
        for match in re.finditer(r"\b(" + "|".join(INDICES) + r")(<[^()]*>)?\(", code):
            if code[:match.start()].rstrip().endswith(("GRAFT_DEVICE float", "GRAFT_DEVICE static int", "T", "void", "Element>")):
                continue                             # a definition
            spans = arguments(code, match.end() - 1)
            for which in INDICES[match.group(1)]:
                if which < len(spans) and not (match.group(1) == "copy_async" and which == 2):
                    begin, end = spans[which]
                    add("index", code[:begin] + " 1 + (" + code[begin:end].strip() + ")" + code[end:], (begin, " planted({k}) + ("), (end, ")"))
        for match in re.finditer(r"(?<=[\w)\]]) ([+-]) (?=[\w(])| ([+-])= |(?<=[(,?:=] )(-)(?=[a-z(])", code):
            sign = match.group(1) or match.group(2) or match.group(3)
            at = code.index(sign, match.start())
            after = code[:at] + ("-" if sign == "+" else "+") + code[at + 1:]
            if match.group(2):                       # x += a + b: the sign is of all that follows
                add("sign", after, (match.end(), "planted_sign({k}) * ("), (end_of_expression(code, match.end()), ")"))
            else:
                add("sign", after, (at + 1, " planted_sign({k}) * "))
    return found


# Included first in every source of a program that holds all mutants of a file.
SWITCH = """#pragma once
#include <cstdlib>
inline const int graft_mutant = std::getenv("GRAFT_MUTANT") ? std::atoi(std::getenv("GRAFT_MUTANT")) : -1;
inline bool planted(int number) { return number == graft_mutant; }
inline int planted_sign(int number) { return number == graft_mutant ? -1 : 1; }
"""


class Program:
    """The emulator's tests with one file of device code changed."""

    def __init__(self, file: str, lines: list[str], objects: list[str]):
        sources, tests = TARGETS[file]
        self.folder = tempfile.TemporaryDirectory(prefix="graft-mutant-")
        overlay = pathlib.Path(self.folder.name)
        shutil.copytree(ROOT / "kernels", overlay / "kernels", ignore=lambda folder, names: [n for n in names if n.endswith(".cpp") and "cuda" not in folder])
        (overlay / file).write_text("\n".join(lines) + "\n")
        (overlay / "switch.h").write_text(SWITCH)
        made, replaced, self.errors = [], set(), ""
        self.path = overlay / "program"
        if "Attention.*" in tests:
            tests = ":".join([*(f"Cuda/Attention.InBfloat16/{case}" for case in ATTENTION_CASES.split("|")), "Cuda/CachedAttention.InBfloat16/documents"])
        self.filter = f"--gtest_filter={tests}"
        for source in sources:
            path = overlay / source if (overlay / source).exists() else ROOT / source
            made.append(str(overlay / (path.name + ".o")))
            replaced.add(path.stem)
            self.errors += self._call("g++", "-std=c++20", "-O1", "-w", "-ftrivial-auto-var-init=pattern", "-x", "c++", "-include", str(overlay / "switch.h"),
                                      f"-I{ROOT / 'tests/emulator'}", f"-I{overlay}", f"-I{ROOT}", "-c", str(path), "-o", made[-1])
            if self.errors:
                return
        kept = [o for o in objects if not any(pathlib.Path(o).name in (f"emulated_{stem}.cpp.o", f"{stem}.cpp.o") for stem in replaced)]
        self.errors += self._call("g++", *made, *kept, "-o", str(self.path), "-lgtest", "-lgmock", "-lgtest_main", "-lpthread")

    @staticmethod
    def _call(*command: str) -> str:
        result = subprocess.run(command, capture_output=True, text=True)
        return "" if result.returncode == 0 else result.stderr or "failed"

    def passes(self, number: int, limit_s: float) -> bool:
        """Within so many seconds of a processor's time, which other work on the machine does not lengthen: a kernel that does not end is killed."""
        limit = lambda: resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s), int(limit_s)))
        return subprocess.run([self.path, self.filter, "--gtest_fail_fast"], capture_output=True, preexec_fn=limit, env={**os.environ, "GRAFT_MUTANT": str(number)}).returncode == 0


def judge(file: str, mutants: list[Mutant], objects: list[str], jobs: int) -> list[tuple[Mutant, bool]]:
    """Each mutant that is a program, and whether the tests find it."""
    lines = (ROOT / file).read_text().splitlines()
    alone: set[int] = set()                          # lines that hold no switch
    while True:
        changed = list(lines)
        insertions: dict[int, list[tuple[int, str]]] = {}
        for number, mutant in enumerate(mutants):
            if mutant.line not in alone:
                insertions.setdefault(mutant.line, []).extend((at, text.replace("{k}", str(number))) for at, text in mutant.switched)
        for line, edits in insertions.items():
            for at, text in sorted(edits, key=lambda edit: edit[0], reverse=True):
                changed[line - 1] = changed[line - 1][:at] + text + changed[line - 1][at:]
        together = Program(file, changed, objects)
        if not together.errors:
            break
        refused = {int(line) for line in re.findall(re.escape(file) + r":(\d+):", together.errors)} & insertions.keys()
        if not refused:
            sys.exit(f"mutants: expected {file} to compile with switches, got:\n{together.errors[:3000]}")
        alone |= refused
    seconds = lambda: resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    begin = seconds()
    if not together.passes(-1, 900):
        sys.exit(f"mutants: expected the tests of {file} to pass without a mutant, got a failure")
    limit_s = 20 + 5 * (seconds() - begin)

    def verdict(number: int) -> bool | None:
        mutant = mutants[number]
        if mutant.line not in alone:
            return not together.passes(number, limit_s)
        changed = list(lines)
        changed[mutant.line - 1] = mutant.after
        single = Program(file, changed, objects)
        return None if single.errors else not single.passes(-1, limit_s)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        verdicts = list(pool.map(verdict, range(len(mutants))))
    return [(mutant, found) for mutant, found in zip(mutants, verdicts) if found is not None]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="files whose name contains this")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--sample", type=int, default=0, help="at most so many mutants a file, chosen with seed 1")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release", help="a build folder with the objects of test_emulator")
    parser.add_argument("--out", type=pathlib.Path, help="the report, as Markdown")
    options = parser.parse_args()
    folder = options.build
    listed = subprocess.run(["ninja", "-C", folder, "-t", "inputs", "tests/test_emulator"], capture_output=True, text=True).stdout.split()
    objects = [str(folder / name) for name in listed if name.endswith(".o") and (folder / name).exists()]   # not those of sources that are no longer there
    if not objects:
        sys.exit(f"mutants: expected objects below {folder}, got none: ninja -C build/release test_emulator")
    reasons = {}
    for line in (pathlib.Path(__file__).parent / "surviving_mutants.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            key, _, reason = line.rpartition(" | ")
            reasons[key] = reason
    text, ok = ["# Mutants of device code", "", f"`{' '.join(['tests/emulator/mutants.py', *sys.argv[1:]])}`", "", "| file | mutants | found | share |", "|---|---|---|---|"], True
    survivors = []
    for file in TARGETS:
        if options.only not in file:
            continue
        mutants = mutants_of(file)
        if options.sample and len(mutants) > options.sample:
            mutants = random.Random(1).sample(mutants, options.sample)
        judged = judge(file, mutants, objects, options.jobs)
        found = sum(was_found for _, was_found in judged)
        text.append(f"| {file} | {len(judged)} | {found} | {100 * found / max(1, len(judged)):.1f} % |")
        print(text[-1], flush=True)
        for mutant, was_found in judged:
            if not was_found:
                reason = reasons.get(mutant.key(), "")
                survivors.append(f"- {mutant.file}:{mutant.line} ({mutant.kind}): `{mutant.after.strip()}` — {reason or 'NO REASON GIVEN'}")
                print(f"{mutant.key()} | {reason}", flush=True)
                ok = ok and bool(reason)
        ok = ok and found >= 0.9 * len(judged)
    if survivors:
        text += ["", "Not found, because:", "", *survivors]
    if options.out:
        options.out.write_text("\n".join(text) + "\n")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
