#!/usr/bin/env python3
"""Several processes train one run: the bytes of one process, whatever their number; every failure is one error that says so.

  parallel_test.py --graft PROGRAM [Same|Sharded|Lost|Refused|Launchers...]
"""
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import graft_program
from graft_program import ROOT, ticket_source
from tiny_chat_model import make_tiny_chat_model, write_rows

BASE = ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
TORCHRUN = ROOT / ".deps/python/bin/torchrun"
LOST_SECONDS = 60
HEADER_MIB = 4   # of the GGUF file: mostly its tokenizer, and pages that the kernel maps around it


def free_port() -> int:
    import socket
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def outcome(run: pathlib.Path) -> tuple:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    adapter = hashlib.sha256((run / "adapter/adapter_model.safetensors").read_bytes()).hexdigest()
    return adapter, [(line["step"], line["loss"], line["gradient_norm"], line.get("validation_loss")) for line in lines]


class Runs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="graft-parallel-"))
        cls.model = make_tiny_chat_model(cls.folder / "model")
        write_rows(cls.folder / "train.jsonl", 120, seed=1)
        write_rows(cls.folder / "test.jsonl", 11, seed=2)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def recipe(self, name: str, **changes) -> pathlib.Path:
        """A recipe in JSON, which is YAML. changes: "section__key" = value."""
        source = {"format": "labelled", "text": "text", "label": "label", "prompt": "{text}"}
        recipe = {
            "accept_licence": "unknown", "model": {"base": str(self.model), "compute": "float32"}, "adapter": {"rank": 4, "alpha": 8},
            "data": {"train": [{"path": str(self.folder / "train.jsonl"), **source}], "test": [{"path": str(self.folder / "test.jsonl"), **source}],
                     "validation_fraction": 0.1, "max_tokens": 256, "pack_tokens": 256},
            "optimizer": {"learning_rate": 3e-3, "batch_rows": 12}, "schedule": {"steps": 8},
            "run": {"out": str(self.folder / name), "threads": 1, "checkpoint_every": 3, "evaluate_every": 4, "device": "cpu"}, "export": []}
        for key, value in changes.items():
            section, _, inner = key.partition("__")
            if inner:
                recipe[section][inner] = value
            else:
                recipe[section] = value
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps(recipe))
        return path

    def train(self, name: str, processes: int = 1, *more, **changes) -> tuple:
        recipe = self.recipe(name, **changes)
        command = ["train", recipe] if processes == 1 else ["launch", "--processes", processes, recipe]
        done = graft_program.run(*command, *more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return outcome(self.folder / name)

    def processes(self, recipes, size: int, environment=None, port: int = 0, flags=("--quiet",)) -> list[subprocess.Popen]:
        """Rank r trains recipes[r]; torchrun's variables, without torchrun."""
        started, port = [], port or free_port()
        for rank, recipe in enumerate(recipes):
            variables = os.environ | {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size),
                                      "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)} | (environment or {})
            started.append(subprocess.Popen([graft_program.PROGRAM, "train", str(recipe), *flags], stderr=subprocess.PIPE, text=True, env=variables))
        return started

    def wait_for_step(self, run: pathlib.Path, step: int, limit: float = 60) -> None:
        started = time.monotonic()
        while not (run / "metrics.jsonl").exists() or (run / "metrics.jsonl").read_text().count("\n") < step:
            self.assertLess(time.monotonic() - started, limit, f"step {step} was not reached")
            time.sleep(0.02)


class Same(Runs):
    def test_one_two_and_four_processes(self):
        one = self.train("one")
        self.assertLess(one[1][-1][1], one[1][0][1], "the loss does not fall")
        for processes in (2, 4):
            self.assertEqual(self.train(f"same{processes}", processes), one, f"{processes} processes ended with other bytes")
        evaluation = [json.loads((self.folder / name / "evaluation.json").read_text()) for name in ("one", "same4")]
        self.assertEqual(evaluation[0]["after"], evaluation[1]["after"], "the test score differs")

    def test_more_processes_than_micro_batches(self):
        one = self.train("few", data__pack_tokens=4096)
        self.assertEqual(self.train("few3", 3, data__pack_tokens=4096), one)

    def test_resume_with_another_number(self):
        whole = self.train("whole", schedule__shape="constant", schedule__warmup=0)
        self.train("grown", 2, schedule__steps=3, schedule__shape="constant", schedule__warmup=0)
        grown = self.train("grown", 3, "--resume", schedule__shape="constant", schedule__warmup=0)
        without_validation = [(adapter, [line[:3] for line in lines]) for adapter, lines in (grown, whole)]   # the shorter run validated at its end, too
        self.assertEqual(*without_validation)

    def test_bfloat16_repeats(self):
        one = self.train("bf16", model__compute="bfloat16")
        self.assertEqual(self.train("bf16_2", 2, model__compute="bfloat16"), one)

    def test_dropout(self):
        one = self.train("dropout", adapter__dropout=0.1)
        self.assertEqual(self.train("dropout2", 2, adapter__dropout=0.1), one)


class Sharded(Runs):
    def test_equals_unsharded(self):
        one = self.train("unsharded")
        for processes in (2, 3):
            self.assertEqual(self.train(f"sharded{processes}", processes, run__shard_base=True), one, f"{processes} shards ended with other bytes")
        self.assertEqual(self.train("recomputed", 2, run__shard_base=True, run__recompute="layer"), one)

    def test_more_processes_than_micro_batches(self):
        one = self.train("lone", data__pack_tokens=4096)
        self.assertEqual(self.train("lone3", 3, data__pack_tokens=4096, run__shard_base=True), one)

    def test_real_model_in_gguf(self):
        """Q4_1 blocks, rows of q and k in another order than the file's, a tied head in pieces."""
        changes = {"model__base": str(BASE), "schedule__steps": 2, "data__test": [], "data__validation_fraction": 0, "optimizer__batch_rows": 4}
        one = self.train("real", **changes)
        self.assertEqual(self.train("real2", 2, run__shard_base=True, **changes), one)
        # What each rank holds of the base: half of it and two layers; the largest layer of this model is a thirtieth of what is no head.
        kept, whole, buffers = self.sizes_in_log("real2")
        self.assertLess(kept, whole / 2 * 1.01)
        self.assertLess(buffers, 2 * whole / 30)


    def test_resident_memory_from_outside(self):
        """What the kernel says each rank holds of the base: mapped pages of its file, beside the share and the two buffers that the log names."""
        changes = {"model__base": str(BASE), "schedule__steps": 1000, "run__evaluate_every": 1000, "data__test": [], "data__validation_fraction": 0,
                   "optimizer__batch_rows": 4}
        recipe = self.recipe("resident", run__shard_base=True, **changes)
        started = self.processes([recipe] * 2, 2, flags=())
        try:
            self.wait_for_step(self.folder / "resident", 2)
            mapped = [statistics.median(values) / 2**20 for values in zip(*(self.mapped_bytes(started) for _ in range(40)))]
        finally:
            for process in started:
                process.terminate()
                process.communicate()
        kept, whole, buffers = self.sizes_in_log("resident")
        print(f"base {whole:.1f} MiB: each of two ranks keeps {kept:.1f}, {buffers:.1f} in two buffers, " +
              " and ".join(f"{value:.1f}" for value in mapped) + " of the file mapped (its header is 1.7)")
        for value in mapped:
            self.assertLess(kept + buffers + value, whole / 2 + 2 * whole / 30 + HEADER_MIB)

    def mapped_bytes(self, processes: list[subprocess.Popen]) -> list[int]:
        time.sleep(0.05)
        found = []
        for process in processes:
            resident, ours = 0, False
            for line in pathlib.Path(f"/proc/{process.pid}/smaps").read_text().splitlines():
                if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                    ours = line.endswith(str(BASE.resolve()))
                elif ours and line.startswith("Rss:"):
                    resident += int(line.split()[1]) * 1024
            found.append(resident)
        return found

    def sizes_in_log(self, name: str) -> tuple[float, float, float]:
        found = re.search(r"keeps ([\d.]+) of ([\d.]+) MiB, and ([\d.]+) MiB in two buffers", (self.folder / name / "log.txt").read_text())
        kept, whole, buffers = map(float, found.groups())
        return kept, whole, buffers


class Lost(Runs):
    def lose(self, name: str, victim: int, how, expected: list[str], code: int = 3, size: int = 2, **changes) -> None:
        recipe = self.recipe(name, schedule__steps=100000, run__evaluate_every=100000, **changes)
        started = self.processes([recipe] * size, size)
        try:
            self.wait_for_step(self.folder / name, 5)
            lost_at = time.monotonic()
            how(started[victim])
            for rank, process in enumerate(started):
                if rank == victim:
                    continue
                _, errors = process.communicate(timeout=LOST_SECONDS)
                self.assertEqual(process.returncode, code, errors)
                self.assertEqual(errors.count("error:"), 1, errors)
                for text in expected:
                    self.assertIn(text, errors)
            self.assertLess(time.monotonic() - lost_at, LOST_SECONDS)
        finally:
            for process in started:
                if process.poll() is None:
                    process.send_signal(signal.SIGCONT)
                    process.kill()
                process.communicate()

    def test_killed(self):
        self.lose("killed", 1, lambda process: process.kill(), ["rank 1", "at step", "go", "--resume"])

    def test_killed_rank_0(self):
        self.lose("killed0", 0, lambda process: process.kill(), ["rank 0", "--resume"])

    def test_killed_of_three(self):
        self.lose("killed3", 1, lambda process: process.kill(), ["rank 1"], size=3)

    def test_stopped(self):
        self.lose("stopped", 1, lambda process: process.send_signal(signal.SIGSTOP), ["rank 1", "has not answered"])

    def test_stopped_rank_0(self):
        self.lose("stopped0", 0, lambda process: process.send_signal(signal.SIGSTOP), ["rank 0", "no longer answers"])

    def test_full_disk(self):
        """No file of rank 0 may grow: it reports its disk, and so does the other rank."""
        import resource
        recipe = self.recipe("full", schedule__steps=100000, run__evaluate_every=100000, run__checkpoint_every=20)
        started = self.processes([recipe] * 2, 2)
        try:
            self.wait_for_step(self.folder / "full", 2)
            resource.prlimit(started[0].pid, resource.RLIMIT_FSIZE, (10000, 10000))
            errors = [process.communicate(timeout=LOST_SECONDS)[1] for process in started]
        finally:
            for process in started:
                process.kill()
        # SIGXFSZ ends a process that does not ignore it; graft does.
        self.assertEqual([process.returncode for process in started], [3, 3], errors)
        self.assertIn("rank 0", errors[1])
        for text in errors:
            self.assertEqual(text.count("error:"), 1, text)
            self.assertRegex(text, "could not|disk|File too large")

    def test_resume_after_a_kill(self):
        whole = self.train("uncut", schedule__steps=60)
        recipe = self.recipe("cut", schedule__steps=60)
        started = self.processes([recipe] * 2, 2)
        self.wait_for_step(self.folder / "cut", 10)
        started[1].kill()
        for process in started:
            process.communicate(timeout=LOST_SECONDS)
        self.assertEqual(self.train("cut", 2, "--resume", schedule__steps=60), whole)

    def test_stop_signal_to_one_rank(self):
        recipe = self.recipe("signal", schedule__steps=100000)
        started = self.processes([recipe] * 2, 2)
        self.wait_for_step(self.folder / "signal", 4)
        started[1].send_signal(signal.SIGTERM)
        errors = [process.communicate(timeout=30)[1] for process in started]
        self.assertEqual([process.returncode for process in started], [143, 143], errors)
        newest = max(int(path.name.split("-")[1]) for path in (self.folder / "signal/checkpoints").iterdir())
        self.assertEqual(newest, (self.folder / "signal/metrics.jsonl").read_text().count("\n"), "it stopped without saving")


class Refused(Runs):
    def refuse(self, recipes, expected: list[str], environment=None) -> None:
        started = self.processes(recipes, len(recipes), environment)
        errors = [process.communicate(timeout=60)[1] for process in started]
        for process, text in zip(started, errors):
            self.assertEqual(process.returncode, 2, errors)
            self.assertEqual(text.count("error:"), 1, text)
            for part in expected:
                self.assertIn(part, text)

    def test_recipes_differ(self):
        self.refuse([self.recipe("recipe0"), self.recipe("recipe1", optimizer__learning_rate=1e-3)], ["rank 1", "optimizer.learning_rate"])

    def test_bases_differ(self):
        other = make_tiny_chat_model(self.folder / "other" / "model", rms_norm_eps=2e-3)
        self.refuse([self.recipe("base0"), self.recipe("base1", model__base=str(other))], ["rank 1", "base"])

    def test_rows_differ(self):
        (self.folder / "more").mkdir()
        source = json.loads(self.recipe("rows1").read_text())["data"]["train"][0]
        source["path"] = str(write_rows(self.folder / "more/train.jsonl", 120, seed=9))
        self.refuse([self.recipe("rows0"), self.recipe("rows1", data__train=[source])], ["rank 1", "rows"])

    def test_programs_differ(self):
        """Another build of the program: the same one with a byte more."""
        other = self.folder / "graft"
        other.write_bytes(pathlib.Path(graft_program.PROGRAM).read_bytes() + b" ")
        other.chmod(0o700)
        recipe, port = self.recipe("program"), free_port()
        variables = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        started = [subprocess.Popen([program, "train", str(recipe), "--quiet"], stderr=subprocess.PIPE, text=True,
                                    env=os.environ | variables | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
                   for rank, program in enumerate([graft_program.PROGRAM, str(other)])]
        errors = [process.communicate(timeout=60)[1] for process in started]
        self.assertEqual([process.returncode for process in started], [2, 2], errors)
        self.assertTrue(all("rank 1: program build" in text for text in errors), errors)

    def test_a_run_in_the_folder(self):
        """Rank 0's own error reaches the others, which have none."""
        self.train("taken")
        recipe = self.recipe("taken")
        self.refuse([recipe, recipe], ["--resume"])

    def test_half_an_environment(self):
        recipe = self.recipe("half")
        done = subprocess.run([graft_program.PROGRAM, "train", str(recipe)], capture_output=True, text=True, env=os.environ | {"RANK": "0", "WORLD_SIZE": "2"})
        self.assertEqual(done.returncode, 2)
        self.assertIn("MASTER_ADDR", done.stderr)


class Launchers(Runs):
    def test_torchrun(self):
        one = self.train("alone")
        recipe = self.recipe("torchrun")
        done = subprocess.run([TORCHRUN, "--nproc-per-node", "2", "--no-python", "--master-port", str(free_port()), graft_program.PROGRAM, "train", str(recipe),
                               "--quiet"], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(outcome(self.folder / "torchrun"), one)

    def test_slurm_and_open_mpi(self):
        one = self.train("single")
        port = str(free_port())
        for name, variables in {
                "slurm": lambda rank: {"SLURM_PROCID": rank, "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": rank, "SLURM_STEP_TASKS_PER_NODE": "2",
                                       "SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_ID": str(os.getpid())},
                "mpi": lambda rank: {"OMPI_COMM_WORLD_RANK": rank, "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": rank,
                                     "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "MASTER_PORT": port}}.items():
            recipe = self.recipe(name)
            started = [subprocess.Popen([graft_program.PROGRAM, "train", str(recipe), "--quiet"], stderr=subprocess.PIPE, text=True,
                                        env=os.environ | variables(str(rank))) for rank in range(2)]
            errors = [process.communicate(timeout=60)[1] for process in started]
            self.assertEqual([process.returncode for process in started], [0, 0], errors)
            self.assertEqual(outcome(self.folder / name), one)

    def test_interrupted_launch(self):
        recipe = self.recipe("interrupted", schedule__steps=100000)
        process = subprocess.Popen([graft_program.PROGRAM, "launch", "--processes", "2", str(recipe), "--quiet"], stderr=subprocess.PIPE, text=True)
        self.wait_for_step(self.folder / "interrupted", 3)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 130, errors)

    def test_a_wrong_recipe_is_one_error(self):
        done = graft_program.run("launch", "--processes", 3, self.recipe("wrong", optimizer__momentum=1))
        self.assertEqual(done.returncode, 2)
        self.assertEqual(done.stderr.count("error:"), 1, done.stderr)

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("ip"), "network namespaces need root and iproute2")
    def test_two_hosts(self):
        """Two network namespaces joined by a veth pair, torchrun in each: one run across them."""
        one = self.train("host")
        tag = f"g{os.getpid() % 100000}"
        left, right = f"{tag}a", f"{tag}b"
        def ip(*words):
            subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
        try:
            for name in (left, right):
                ip("netns", "add", name)
            ip("link", "add", left, "type", "veth", "peer", "name", right)
            for name, address in ((left, "10.77.0.1/24"), (right, "10.77.0.2/24")):
                ip("link", "set", name, "netns", name)
                ip("-n", name, "addr", "add", address, "dev", name)
                ip("-n", name, "link", "set", name, "up")
                ip("-n", name, "link", "set", "lo", "up")
            recipe = self.recipe("hosts")
            started = [subprocess.Popen(["ip", "netns", "exec", name, str(TORCHRUN), "--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1",
                                         "--master-addr", "10.77.0.1", "--master-port", "29555", "--no-python", graft_program.PROGRAM, "train", str(recipe), "--quiet"],
                                        stderr=subprocess.PIPE, text=True) for rank, name in enumerate((left, right))]
            errors = [process.communicate(timeout=120)[1] for process in started]
            self.assertEqual([process.returncode for process in started], [0, 0], errors)
            self.assertEqual(outcome(self.folder / "hosts"), one)
        finally:
            for name in (left, right):
                subprocess.run(["ip", "netns", "del", name], capture_output=True)


if __name__ == "__main__":
    graft_program.main()
