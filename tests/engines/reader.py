"""Talks to a reader of tools/engines as graft does, and measures how far two sets of logits lie apart."""
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

ENGINES = pathlib.Path(__file__).resolve().parents[2] / "tools" / "engines"


class Reader:
    """with Reader("llama_cpp", model=..., adapter=..., cache="F32") as reader: reader.logits(ids)"""

    def __init__(self, engine: str, **load):
        self._process = subprocess.Popen([sys.executable, str(ENGINES / f"{engine}_reader.py")], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            self.loaded = self.ask("load", **load)
        except Exception:
            self.__exit__()
            raise

    def ask(self, command: str, **request) -> dict:
        self._process.stdin.write(json.dumps({"command": command} | {k: str(v) if isinstance(v, pathlib.Path) else v
                                                                       for k, v in request.items()}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"error": "the reader ended"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def logits(self, ids: list[int]) -> np.ndarray:
        with tempfile.NamedTemporaryFile() as out:
            shape = self.ask("logits", ids=ids, out=out.name)
            return np.fromfile(out.name, "<f4").reshape(shape["rows"], shape["columns"])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def mean_kl(reference: np.ndarray, other: np.ndarray) -> float:
    """Mean over positions of KL(reference || other), in double."""
    p, q = log_softmax(reference), log_softmax(other)
    return float((np.exp(p) * (p - q)).sum(1).mean())
