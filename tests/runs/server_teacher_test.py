#!/usr/bin/env python3
"""A teacher behind a completions server: what llama.cpp's server says is what graft computes from the same file; the three forms of answers say the same; a server that
fails, refuses or answers otherwise is one error that names row and host, what is finished is kept, and the key stands nowhere."""
import ctypes
import http.server
import json
import math
import os
import pathlib
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import graft_program
from tiny_chat_model import make_tiny_chat_model, write_rows

ROWS, COUNT, VOCABULARY = 12, 8, 600
SOURCE = {"format": "labelled", "text": "text", "label": "label", "prompt": "{text}"}
KEY = "sk-Very-Secret-0123456789"
ALPHABET = sorted(chr(c) for c in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)])   # of byte-level tokens, as tiny_chat_model numbers them
LETTERS = [i for i, letter in enumerate(ALPHABET) if letter.isascii() and letter.isalpha()]
TEXTS = {i: ALPHABET[i] for i in LETTERS} | {256: "<|im_start|>", 257: "<|im_end|>"}


class Shards:
    """The entries of a store, read by libhdf5 and the codec's description (data/teacher_signals/signal_codec.h)."""
    def __init__(self, folder: pathlib.Path, count: int):
        listed = subprocess.run(["ldd", graft_program.PROGRAM], capture_output=True, text=True).stdout
        self.hdf5 = ctypes.CDLL(re.search(r"libhdf5\S* => (\S+)", listed)[1])
        for name in ("H5Fopen", "H5Dopen2", "H5Dget_space"):
            getattr(self.hdf5, name).restype = ctypes.c_int64
        self.hdf5.H5Sget_simple_extent_npoints.restype = ctypes.c_int64
        self.hdf5.H5open()
        self.rows = {}   # by hash: of each token {id: depth code}, tail code
        for path in sorted(folder.glob("part-*.h5")):
            hashes, tokens, offsets, bits = (self.read(path, *array) for array in (("row_hashes", "UCHAR", "B"), ("num_tokens", "INT", "i"), ("offsets", "LLONG", "q"), ("bits", "UCHAR", "B")))
            for row, num_tokens in enumerate(tokens):
                self.rows[bytes(hashes[32 * row:32 * row + 32])] = self.decode(bytes(bits[offsets[row]:offsets[row + 1]]), num_tokens, count)

    def read(self, path: pathlib.Path, name: str, kind: str, code: str) -> tuple:
        file = ctypes.c_int64(self.hdf5.H5Fopen(str(path).encode(), 0, ctypes.c_int64(0)))
        data = ctypes.c_int64(self.hdf5.H5Dopen2(file, name.encode(), ctypes.c_int64(0)))
        number = self.hdf5.H5Sget_simple_extent_npoints(ctypes.c_int64(self.hdf5.H5Dget_space(data)))
        buffer = ctypes.create_string_buffer(number * struct.calcsize(code))
        all_of_it, kind = ctypes.c_int64(0), ctypes.c_int64.in_dll(self.hdf5, f"H5T_NATIVE_{kind}_g")
        assert self.hdf5.H5Dread(data, kind, all_of_it, all_of_it, all_of_it, buffer) == 0
        self.hdf5.H5Fclose(file)
        return struct.unpack(f"{number}{code}", buffer.raw)

    @staticmethod
    def decode(bits: bytes, num_tokens: int, count: int) -> list:
        stream, at = int.from_bytes(bits, "little"), 0

        def take(width: int) -> int:
            nonlocal at
            at += width
            return stream >> (at - width) & ((1 << width) - 1)
        mean = VOCABULARY / (count + 1) * 0.6931
        parameter = 0 if mean < 2 else int(mean).bit_length() - 1
        tokens = []
        for _ in range(num_tokens):
            ids, last = [], -1
            for _ in range(count):
                high = 0
                while take(1):
                    high += 1
                last += 1 + (high << parameter | take(parameter))
                ids.append(last)
            tokens.append(({token: take(8) for token in ids}, take(16)))
        return tokens


class FakeServer:
    """Answers as a model would that likes letters, in one of the three forms, or misbehaves."""
    def __init__(self, form: str = "next", port: int = 0, misbehave=None):
        outer, self.form, self.misbehave, self.requests, self.keys = self, form, misbehave, [], set()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_):
                pass

            def answer(self, status: int, body, headers: dict = {}):
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(content))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self):
                outer.keys.add(self.headers.get("Authorization"))
                self.answer(200, {"object": "list", "data": [{"id": "fake-model", "object": "model", "created": int(time.time() * 1000), "owned_by": "nobody"}]})

            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(request)
                outer.keys.add(self.headers.get("Authorization"))
                if outer.misbehave and outer.misbehave(self, request):
                    return
                self.answer(200, {"choices": [outer.choice(request)], "usage": {"prompt_tokens": len(request["prompt"])}})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None   # of clients that leave
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.url = f"http://{self.host}/v1"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    @staticmethod
    def likeliest(prefix: list[int], count: int) -> list[tuple[int, float]]:
        chance = random.Random(str(prefix))
        logits = [chance.gauss(0, 2) + (8 if token in TEXTS else 0) for token in range(VOCABULARY)]
        total = math.log(sum(map(math.exp, logits)))
        return sorted(((token, logit - total) for token, logit in enumerate(logits)), key=lambda entry: -entry[1])[:count]

    def choice(self, request: dict) -> dict:
        ids, count = request["prompt"], request.get("logprobs", request.get("prompt_logprobs"))
        places = range(1, len(ids))
        if self.form == "scores" and "prompt_logprobs" in request:
            entries = lambda i: dict(self.likeliest(ids[:i], count)) | {ids[i]: dict(self.likeliest(ids[:i], VOCABULARY))[ids[i]]}
            return {"prompt_logprobs": [None, *({str(token): {"logprob": value, "rank": 1, "decoded_token": TEXTS.get(token, "\ufffd")} for token, value in entries(i).items()} for i in places)]}
        if self.form == "echoes" and request.get("echo"):
            top = [None, *({TEXTS[token]: value for token, value in self.likeliest(ids[:i], count)} for i in places)]
            return {"logprobs": {"tokens": [TEXTS.get(token, "\ufffd") for token in ids], "top_logprobs": [*top, {}]}}
        if self.form == "texts":
            return {"logprobs": {"tokens": ["a"], "top_logprobs": [{TEXTS[token]: value for token, value in self.likeliest(ids, count)}]}}
        if "logprobs" not in request or self.form != "next":
            return {"text": "a", "logprobs": None}
        return {"logprobs": {"content": [{"top_logprobs": [{"id": token, "token": TEXTS[token], "bytes": list(TEXTS[token].encode()), "logprob": value}
                                                           for token, value in self.likeliest(ids, count)]}]}}


class ServerTeacher(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory(prefix="graft-server-")
        cls.folder = pathlib.Path(cls.scratch.name)
        cls.student = make_tiny_chat_model(cls.folder / "student", initializer_range=0.2)
        cls.rows = write_rows(cls.folder / "rows.jsonl", ROWS)

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def recipe(self, name: str, teacher: dict, **changes) -> pathlib.Path:
        """The cache is the name's own."""
        recipe = {"accept_licence": "unknown", "model": {"base": str(self.student), "compute": "float32"}, "adapter": {"rank": 4, "alpha": 8},
                  "data": {"train": [SOURCE | {"path": str(self.rows)}]}, "objective": {"kind": "distill"},
                  "teacher": {"signal": "cached", "entries": "top", "count": COUNT} | teacher, "optimizer": {"learning_rate": 1e-2, "batch_rows": ROWS},
                  "schedule": {"steps": 4, "shape": "constant", "warmup": 0},
                  "run": {"out": str(self.folder / name), "cache": str(self.folder / f"{name}_cache"), "threads": 2, "device": "cpu"}, "export": []}
        for key, value in changes.items():
            section, _, field = key.partition("__")
            recipe[section] = recipe.get(section, {}) | {field: value}
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps(recipe))
        return path

    def by_server(self, name: str, url: str, teacher: dict = {}, **changes) -> pathlib.Path:
        return self.recipe(name, {"server": url, "licence": "apache-2.0"} | teacher, **changes)

    def run_recipe(self, command: str, recipe: pathlib.Path, *arguments) -> str:
        done = graft_program.run(command, recipe, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout + done.stderr

    def summary(self, recipe: pathlib.Path) -> dict:
        done = graft_program.run("teach", recipe, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout.strip().splitlines()[-1])

    def refused(self, command: str, recipe: pathlib.Path, *parts: str, environment: dict = {}) -> str:
        done = subprocess.run([graft_program.PROGRAM, command, str(recipe)], capture_output=True, text=True, env={**os.environ, **environment})
        self.assertIn(done.returncode, (1, 2), done.stdout + done.stderr)
        for part in parts:
            self.assertIn(part, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def entries(self, name: str, count: int = COUNT) -> dict:
        store, = (self.folder / f"{name}_cache").glob("teacher-*")
        return Shards(store, count).rows

    def test_llama_cpps_server_says_what_graft_computes(self):
        import xllamacpp
        count = 40
        teacher = make_tiny_chat_model(self.folder / "teacher", initializer_range=0.15, hidden_size=96, num_hidden_layers=3)
        file = self.folder / "teacher.gguf"
        done = graft_program.run("export", teacher, "--to", "gguf:F16", "--out", file)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.run_recipe("teach", self.recipe("own", {"model": str(file), "compute": "float32", "count": count}))
        parameters = xllamacpp.CommonParams()
        parameters.model.path, parameters.model_alias = str(file), {"tiny"}
        parameters.n_ctx, parameters.n_parallel, parameters.warmup, parameters.port, parameters.verbosity = 512, 1, False, 0, -1
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 2
        parameters.api_keys = [KEY]
        server = xllamacpp.Server(parameters)
        url = server.listening_address + "/v1"
        recipe = self.by_server("served", url, {"count": count, "key_env": "TEACHER_KEY", "server_model": "tiny"})
        self.refused("teach", recipe, "expected the server to accept the key of TEACHER_KEY", "HTTP 401", environment={"TEACHER_KEY": "wrong"})
        os.environ["TEACHER_KEY"] = KEY
        self.addCleanup(os.environ.pop, "TEACHER_KEY", None)
        plan = self.refused("plan", recipe, "run `graft teach`")
        self.assertRegex(plan, rf"would send\s+{ROWS} rows")
        self.assertIn(url.removeprefix("http://").removesuffix("/v1"), plan)
        summary = self.summary(recipe)
        self.assertEqual((summary["rows"], summary["new_rows"], summary["complete"]), (ROWS, ROWS, True))
        own, served = self.entries("own", count), self.entries("served", count)
        depth = lambda code: 24 * code ** 2 / 255 ** 2   # nats below the likeliest
        self.assertEqual(own.keys(), served.keys())
        tokens = 0
        for row in own:
            for (ours, our_tail), (theirs, their_tail) in zip(own[row], served[row], strict=True):
                tokens += 1
                for token in ours.keys() | theirs.keys():   # an id that only one has is as likely as the last that both have
                    of_ours, of_theirs = ours.get(token, max(ours.values())), theirs.get(token, max(theirs.values()))
                    step = depth(max(of_ours, of_theirs) + 1) - depth(max(of_ours, of_theirs))
                    self.assertLess(abs(depth(of_ours) - depth(of_theirs)), 2e-2 + step, f"token {token}: {ours}, {theirs}")   # 1e-2 of each of two tokens, and the codec's
                self.assertGreaterEqual(len(ours.keys() & theirs.keys()), count - 1)
                self.assertLess(abs(our_tail - their_tail) / 65534 * 24, 1e-2)   # nats
        self.assertGreater(tokens, 4 * ROWS)
        self.run_recipe("train", recipe)
        losses = [json.loads(line)["loss"] for line in (self.folder / "served/metrics.jsonl").read_text().splitlines()]
        self.assertLess(losses[-1], losses[0])
        manifest = json.loads((self.folder / "served/manifest.json").read_text())
        self.assertEqual((manifest["teacher"]["name"], manifest["teacher_licence"]), ("tiny", "apache-2.0"))
        for path in self.folder.rglob("*"):
            if path.is_file() and (path.is_relative_to(self.folder / "served") or path.is_relative_to(self.folder / "served_cache")):
                self.assertNotIn(KEY.encode(), path.read_bytes(), path)
        # The server is asked by `graft teach` alone.
        del server
        for command in ("plan", "train"):
            trace = self.folder / f"{command}.trace"
            arguments = ["strace", "--seccomp-bpf", "-f", "-qq", "-e", "trace=%network", "-e", "signal=none", "-o", trace, graft_program.PROGRAM, command, recipe]
            done = subprocess.run([*map(str, arguments), *(["--out", str(self.folder / "again")] if command == "train" else [])], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertEqual(trace.read_text(), "", f"graft {command} used the network")
        needed = subprocess.run(["readelf", "-d", graft_program.PROGRAM], capture_output=True, text=True, check=True).stdout
        self.assertIn("libhdf5", needed)
        self.assertNotIn("curl", needed)

    def test_all_forms_of_answers_say_the_same(self):
        entries, requests = {}, {}
        for form in ("scores", "echoes", "next", "texts"):
            with FakeServer(form) as server:
                self.summary(self.by_server(f"form_{form}", server.url))
                entries[form], requests[form] = self.entries(f"form_{form}"), len(server.requests)
                self.assertEqual({request["model"] for request in server.requests}, {"fake-model"})
        tokens = sum(map(len, entries["next"].values()))
        for form, found in entries.items():
            self.assertEqual(found, entries["next"], form)
        probes = {"scores": 1, "echoes": 2, "next": 3, "texts": 3}
        self.assertEqual(requests, {form: number + (ROWS if form in ("scores", "echoes") else tokens) for form, number in probes.items()})

    def test_what_cannot_be_asked_is_refused(self):
        here = "http://127.0.0.1:9/v1"
        for number, (url, teacher, changes, part) in enumerate((
                ("http://192.0.2.7:8080/v1", {}, {}, "teacher.allow_remote true"),
                ("http://127.0.0.1.example.org/v1", {}, {}, "teacher.allow_remote true"),
                (f"http://user:{KEY}@127.0.0.1/v1", {}, {}, "without user, password, query"),
                (f"http://127.0.0.1/v1?api_key={KEY}", {}, {}, "without user, password, query"),
                ("127.0.0.1:8080", {}, {}, "http:// or https://"),
                (here, {"key": KEY}, {}, "got 'teacher.key'"),
                (here, {"key_env": KEY}, {}, "the name of an environment variable"),
                (here, {"licence": None}, {}, "the licence of the server's model"),
                (here, {"licence": "cc-by-nc-4.0"}, {}, "not for commercial use"),
                (here, {"model": str(self.student)}, {}, "teacher.model none"),
                (here, {"demonstration": "shown.json"}, {}, "teacher.demonstration null"),
                (here, {"signal": "online"}, {}, "teacher.signal cached"),
                (here, {"entries": "drawn"}, {}, "teacher.entries top"),
                (here, {}, {"objective__temperature": 2}, "objective.temperature 1"),
                (here, {"key_env": "NOT_SET_ANYWHERE"}, {}, "in the environment variable NOT_SET_ANYWHERE"))):
            with self.subTest(part, url=url):
                shown = self.refused("plan" if number % 2 else "teach", self.by_server(f"refused_{number}", url, teacher, **changes), part)
                self.assertNotIn(KEY, shown)
        self.refused("plan", self.recipe("no_server", {"model": str(self.student), "key_env": "A"}), "without teacher.server")

    def test_a_server_that_fails_is_one_error_with_row_and_host(self):
        def says(status: int, body, headers: dict = {}):
            return lambda handler, request: handler.answer(status, body, headers) or True

        def other_tokens(handler, request):
            entries = [{"id": (token + 1) % VOCABULARY, "token": TEXTS[token], "bytes": list(TEXTS[token].encode()), "logprob": value} for token, value in FakeServer.likeliest(request["prompt"], COUNT)]
            return handler.answer(200, {"choices": [{"logprobs": {"content": [{"top_logprobs": entries}]}}]}) or True

        def cut(handler, request):
            entries = [{"id": LETTERS[i], "token": TEXTS[LETTERS[i]], "logprob": -1.0 if i < 2 else -9999.0} for i in range(COUNT)]
            return handler.answer(200, {"choices": [{"logprobs": {"content": [{"top_logprobs": entries}]}}]}) or True

        def another_length(handler, request):
            return handler.answer(200, {"choices": [FakeServer.choice(server, request)], "usage": {"prompt_tokens": len(request["prompt"]) + 1}}) or True

        def tells_the_key(handler, request):
            return handler.answer(401, {"error": {"message": f"no such key: {handler.headers['Authorization']}"}}) or True

        def shuts(handler, request):
            handler.close_connection = True
            return True
        key = {"key_env": "TEACHER_KEY"}
        for number, (misbehave, teacher, part) in enumerate((
                (tells_the_key, key, "HTTP 401: \"no such key: Bearer ...\""),
                (says(500, {"error": {"message": "out of luck"}}), {}, "HTTP 500: \"out of luck\""),
                (says(429, {}, {"Retry-After": "0"}), {}, "HTTP 429"),
                (says(307, {}, {"Location": "http://127.0.0.1:9/v1"}), {}, "follows no redirect"),
                (says(200, {"choices": [{"text": "a"}]}), {}, "expected log-probabilities"),
                (says(200, b"<html>"), {}, "expected an answer in JSON"),
                (says(200, b" " * ((64 << 20) + 1)), {}, "more than 64 MiB"),
                (lambda handler, request: time.sleep(3) or True, {"answer_seconds": 0.5}, "within 0.5 seconds"),
                (shuts, {}, "expected an answer within"),
                (other_tokens, {}, "with the student's tokens"),
                (cut, {}, "of the whole distribution"),
                (another_length, {}, "tokens it is sent"),
                (None, {"server_model": "another"}, "the model another on the server, got fake-model"))):
            with self.subTest(part), FakeServer(misbehave=misbehave) as server:
                shown = self.refused("teach", self.by_server(f"fails_{number}", server.url, teacher), part, "rows.jsonl:1", server.host, environment={"TEACHER_KEY": KEY})
                self.assertNotIn(KEY, shown)
                self.assertEqual(server.keys, {f"Bearer {KEY}"} if teacher == key else {None})
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
            self.refused("teach", self.by_server("fails_closed", f"http://127.0.0.1:{port}/v1"), "rows.jsonl:1", f"127.0.0.1:{port}", "refused")

    def test_finished_rows_are_kept(self):
        waits = []

        def busy(handler, request):   # once in a while
            if len(server.requests) % 7 == 3 and len(waits) < 3:
                waits.append(handler.answer(429, {}, {"Retry-After": "0"}))
                return True

        def leaves(handler, request):
            if len(server.requests) > 30:
                handler.close_connection = True
                return True

        def stops(handler, request):
            if len(server.requests) == 20:
                process.send_signal(signal.SIGINT)
        with FakeServer(misbehave=busy) as server:
            whole = self.summary(self.by_server("whole", server.url))
            self.assertEqual((whole["new_rows"], len(waits)), (ROWS, 3))
            port = server.server.server_address[1]
        with FakeServer(port=port, misbehave=leaves) as server:
            recipe = self.by_server("kept", server.url)
            self.refused("teach", recipe, "finished rows are kept", server.host)
        with FakeServer(port=port, misbehave=stops) as server:
            process = subprocess.Popen([graft_program.PROGRAM, "teach", str(recipe)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            self.assertIn("what is finished is kept", process.communicate()[1])
            self.assertEqual(process.returncode, 130)
        with FakeServer(port=port) as server:
            rest = self.summary(recipe)
            prompts = len(server.requests)
        self.assertEqual(rest["rows"], ROWS)
        self.assertTrue(0 < rest["new_rows"] < ROWS - 2, rest)
        self.assertEqual(self.entries("kept"), self.entries("whole"))
        self.assertLess(prompts, whole["tokens"])

    def test_another_model_of_the_server_is_another_teacher(self):
        with FakeServer() as server:
            recipe = self.by_server("models", server.url)
            self.summary(recipe)
            self.run_recipe("plan", recipe)
            index, = (self.folder / "models_cache").glob("teacher-*/index.json")
            other = json.loads(index.read_text())
        self.assertEqual(other["description"]["served"], {"id": "fake-model", "owned_by": "nobody"})
        other["description"]["served"]["id"] = "later-model"
        copy = index.parent.parent / "teacher-0123456789abcdef"
        copy.mkdir()
        (copy / "index.json").write_text(json.dumps(other))
        self.refused("plan", recipe, "another model in between", copy.name)


if __name__ == "__main__":
    graft_program.main()
