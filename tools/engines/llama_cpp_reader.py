#!/usr/bin/env python3
"""`graft verify --engine llama.cpp`: reads a GGUF, with a GGUF LoRA beside it if there is one (see reader_protocol.py)."""
from llama_cpp import LlamaCpp, version
from reader_protocol import greedy, serve, write_logits

engine: LlamaCpp | None = None


def load(request: dict) -> dict:
    global engine
    if engine is not None:
        engine.close()
    engine = LlamaCpp(request["model"], request.get("adapter"), request.get("threads", 2), request.get("context", 2048),
                      request.get("cache", "F16"))
    stop, end = engine.end_tokens()
    return {"stop": stop, "end": end, "reader": f"llama.cpp (xllamacpp {version()}, {request.get('cache', 'F16')} cache)", "vocabulary": engine.vocabulary}


def generate(request: dict) -> dict:
    engine.reset()
    first = engine.append(request["ids"], all_rows=False)[-1]
    return greedy(first, lambda token: engine.append([token], all_rows=False)[-1], request["max_tokens"], request["stop"])


if __name__ == "__main__":
    serve({"load": load, "generate": generate, "logits": lambda request: write_logits(engine.logits(request["ids"]), request["out"]),
           "tokenize": lambda request: {"ids": engine.tokenize(request["text"])}})
