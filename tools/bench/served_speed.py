#!/usr/bin/env python3
"""How fast llama.cpp's server serves GGUF files, and in how much memory, such as a teacher's and its student's. Nothing of graft takes part.

  tools/bench/served_speed TEACHER.gguf STUDENT.gguf [--prompt 256] [--answer 128] [--rounds 5] [--threads 2] [--context 2048]

Each file lies in a process of its own with one server (xllamacpp); rounds alternate between the files. A round sends one prompt and takes one greedy answer; the speeds are the
server's own timings: medians, with their ranges. Memory: the process's largest resident set less what it was before the file was loaded; the file's pages are part of it.
Ratios are to the first file. Needs tools/setup --tests.
"""
import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import urllib.request


def serve(file: str, options) -> None:
    """Answers each line on stdin by a line of figures."""
    import xllamacpp
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    parameters = xllamacpp.CommonParams()
    parameters.model.path = file
    parameters.n_ctx, parameters.n_parallel, parameters.warmup, parameters.port, parameters.verbosity = options.context, 1, True, 0, -1
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = options.threads
    server = xllamacpp.Server(parameters)
    for number, _ in enumerate(sys.stdin):
        request = {"prompt": [1000 + (7 * i + number) % 5000 for i in range(options.prompt)], "n_predict": options.answer, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
        asked = urllib.request.Request(server.listening_address + "/completion", json.dumps(request).encode(), {"Content-Type": "application/json"})
        timings = json.load(urllib.request.urlopen(asked))["timings"]
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(json.dumps([timings["prompt_per_second"], timings["predicted_per_second"], memory / 1024]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    for name, value in (("prompt", 256), ("answer", 128), ("rounds", 5), ("threads", 2), ("context", 2048)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.files[0], options)
    numbers = [f"--{name}={getattr(options, name)}" for name in ("prompt", "answer", "threads", "context")]
    servers = [subprocess.Popen([sys.executable, __file__, file, "--serve", *numbers], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for file in options.files]
    figures: list[list[list[float]]] = [[] for _ in servers]
    for _ in range(options.rounds):
        for server, of_file in zip(servers, figures):
            server.stdin.write("\n")
            server.stdin.flush()
            line = server.stdout.readline()
            if not line:
                sys.exit(f"served_speed: expected the server of {options.files[servers.index(server)]} to answer, it ended")
            of_file.append(json.loads(line))
    for server in servers:
        server.stdin.close()
        server.wait()
    print(f"{options.prompt} tokens of prompt, {options.answer} of answer, {options.rounds} rounds, {options.threads} threads, xllamacpp")
    print("| file | MB | prompt, tokens/s | answer, tokens/s | memory, MiB |\n|---|---|---|---|---|")
    column = lambda of_file, i: [figure[i] for figure in of_file]
    first = [statistics.median(column(figures[0], i)) for i in range(3)]
    for file, of_file in zip(options.files, figures):
        cells = []
        for i in range(3):
            values = column(of_file, i)
            ratio = "" if of_file is figures[0] else f", {statistics.median(values) / first[i]:.2f}x"
            cells.append(f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f}){ratio}")
        print(f"| {pathlib.Path(file).name} | {os.path.getsize(file) / 1e6:.1f} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
