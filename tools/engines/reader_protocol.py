"""How graft talks to an engine: one JSON request per line on stdin, one JSON answer per line on stdout, until stdin ends.

  {"command": "load", "model": PATH, "adapter": PATH?, "threads": N, "context": N, "cache": "F16"|"F32", "tokenizer": PATH?}
      -> {"reader": "llama.cpp (xllamacpp 2026...)", "vocabulary": V, "stop": [ids that end generation], "end": ID|null}
  {"command": "logits", "ids": [...], "out": PATH}      writes float32 [T, V], little endian, nothing else
      -> {"rows": T, "columns": V}
  {"command": "generate", "ids": [...], "max_tokens": N, "stop": [ids]}     greedy; the stop token is not returned
      -> {"ids": [...], "stopped": true|false}
  {"command": "tokenize", "text": TEXT}                 special tokens recognised, none added
      -> {"ids": [...]}
A request that fails is answered {"error": TEXT}. What an engine prints goes to stderr; no engine opens a socket.
"""
import json
import os
import sys

import numpy as np


def serve(commands: dict) -> None:
    """commands: name -> function(request) -> answer. The real stdout is kept for answers alone."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            request = json.loads(line)
            command = request.get("command")
            if command not in commands:
                raise ValueError(f"expected a command out of {sorted(commands)}, got {command!r}")
            answer = commands[command](request)
        except Exception as error:  # every failure is an answer: graft decides what it means
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


def write_logits(logits_TV: np.ndarray, path: str) -> dict:
    np.ascontiguousarray(logits_TV, dtype="<f4").tofile(path)
    return {"rows": int(logits_TV.shape[0]), "columns": int(logits_TV.shape[1])}


def greedy(first_logits, next_logits, max_tokens: int, stop: list[int]) -> dict:
    """first_logits: [V]; next_logits(token) -> [V]. Ties go to the smaller id, as in graft."""
    ids, logits = [], first_logits
    while len(ids) < max_tokens:
        token = int(np.argmax(logits))
        if token in stop:
            return {"ids": ids, "stopped": True}
        ids.append(token)
        if len(ids) < max_tokens:
            logits = next_logits(token)
    return {"ids": ids, "stopped": False}
