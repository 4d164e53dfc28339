"""llama.cpp in this process, through the C functions that the wheel xllamacpp exports; its Python classes only reach a
server, which returns probabilities of one position per call.

The two parameter structs are passed by value and differ between versions of llama.cpp. They are held here as opaque
bytes: only the fields named below are written, and at load the defaults are compared with what this layout expects, so
another version is refused instead of misread.
"""
import ctypes
import struct

import numpy as np

PINNED_VERSION = "2026.10.11549"
GGML_TYPES = {"F32": 0, "F16": 1}
MAX_BATCH = 512


class Opaque(ctypes.Structure):
    """Larger than both structs: a struct this large is passed in memory, where the callee reads only its own part."""
    _fields_ = [("bytes", ctypes.c_uint8 * 512)]


class Batch(ctypes.Structure):
    _fields_ = [("n_tokens", ctypes.c_int32), ("token", ctypes.POINTER(ctypes.c_int32)), ("embd", ctypes.c_void_p),
                ("pos", ctypes.POINTER(ctypes.c_int32)), ("n_seq_id", ctypes.c_void_p), ("seq_id", ctypes.c_void_p),
                ("logits", ctypes.POINTER(ctypes.c_int8))]


# (offset, format, expected default) of the llama_context_params fields used here; then those of llama_model_params.
CONTEXT_FIELDS = {"n_ctx": (0x00, "I", 512), "n_batch": (0x04, "I", 2048), "n_ubatch": (0x08, "I", 512), "n_seq_max": (0x0C, "I", 1),
                  "n_outputs_max": (0x14, "I", 0), "n_outputs_max_per_seq": (0x18, "I", 1), "n_threads": (0x1C, "i", 4),
                  "n_threads_batch": (0x20, "i", 4), "rope_scaling_type": (0x28, "i", -1), "flash_attn_type": (0x34, "i", -1),
                  "type_k": (0x68, "i", 1), "type_v": (0x6C, "i", 1), "offload_kqv": (0x89, "B", 1)}
MODEL_FIELDS = {"n_gpu_layers": (0x10, "i", -1), "split_mode": (0x14, "i", 1), "vocab_only": (0x48, "B", 0), "use_extra_bufts": (0x4A, "B", 1)}

LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
GGML_LOG_LEVEL_ERROR = 4


def _prototypes(library: ctypes.CDLL) -> None:
    pointer, int32 = ctypes.c_void_p, ctypes.c_int32
    for name, result, arguments in [
            ("llama_backend_init", None, []), ("llama_log_set", None, [LOG_CALLBACK, pointer]),
            ("llama_model_default_params", Opaque, []), ("llama_context_default_params", Opaque, []),
            ("llama_model_load_from_file", pointer, [ctypes.c_char_p, Opaque]), ("llama_model_free", None, [pointer]),
            ("llama_init_from_model", pointer, [pointer, Opaque]), ("llama_free", None, [pointer]),
            ("llama_adapter_lora_init", pointer, [pointer, ctypes.c_char_p]),
            ("llama_set_adapters_lora", int32, [pointer, pointer, ctypes.c_size_t, pointer]),
            ("llama_model_get_vocab", pointer, [pointer]), ("llama_vocab_n_tokens", int32, [pointer]),
            ("llama_vocab_eos", int32, [pointer]), ("llama_vocab_is_eog", ctypes.c_bool, [pointer, int32]),
            ("llama_get_memory", pointer, [pointer]), ("llama_memory_clear", None, [pointer, ctypes.c_bool]),
            ("llama_decode", int32, [pointer, Batch]), ("llama_get_logits", ctypes.POINTER(ctypes.c_float), [pointer]),
            ("llama_detokenize", int32, [pointer, pointer, int32, ctypes.c_char_p, int32, ctypes.c_bool, ctypes.c_bool]),
            ("llama_tokenize", int32, [pointer, ctypes.c_char_p, int32, pointer, int32, ctypes.c_bool, ctypes.c_bool]),
    ]:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments


def _filled(defaults: Opaque, fields: dict, values: dict) -> Opaque:
    for name, (offset, kind, expected) in fields.items():
        found = struct.unpack_from("<" + kind, defaults.bytes, offset)[0]
        if found != expected:
            raise RuntimeError(f"this llama.cpp lays its parameters out differently ({name}: {found}, expected {expected}); "
                               f"install xllamacpp=={PINNED_VERSION}")
    for name, value in values.items():
        struct.pack_into("<" + fields[name][1], defaults.bytes, fields[name][0], value)
    return defaults


def version() -> str:
    from importlib.metadata import version as installed
    return installed("xllamacpp")


class LlamaCpp:
    """One model, one context. `cache`: type of keys and values; F32 with no flash attention is llama.cpp at its most exact.
    vocabulary_only: no weights and no context; text to tokens and back is all that works."""

    def __init__(self, model: str, adapter: str | None = None, threads: int = 2, context: int = 2048, cache: str = "F16", vocabulary_only: bool = False):
        import xllamacpp.xllamacpp as wheel
        self._errors: list[str] = []
        self._library = ctypes.CDLL(wheel.__file__)
        _prototypes(self._library)
        self._log = LOG_CALLBACK(self._on_log)       # kept alive as long as the library may call it
        self._library.llama_log_set(self._log, None)
        self._library.llama_backend_init()
        self.context_length = context
        parameters = _filled(self._library.llama_model_default_params(), MODEL_FIELDS, {"n_gpu_layers": 0, "vocab_only": vocabulary_only})
        self._model = self._library.llama_model_load_from_file(model.encode(), parameters) or self._fail(f"cannot load {model}")
        self.vocabulary = self._library.llama_vocab_n_tokens(self._library.llama_model_get_vocab(self._model))
        self._context = None
        if vocabulary_only:
            return
        flash = {} if cache == "F16" else {"flash_attn_type": 0}
        values = {"n_ctx": context, "n_batch": MAX_BATCH, "n_ubatch": MAX_BATCH, "n_outputs_max": MAX_BATCH,
                  "n_outputs_max_per_seq": MAX_BATCH, "n_threads": threads, "n_threads_batch": threads,
                  "type_k": GGML_TYPES[cache], "type_v": GGML_TYPES[cache]}
        parameters = _filled(self._library.llama_context_default_params(), CONTEXT_FIELDS, values | flash)
        self._context = self._library.llama_init_from_model(self._model, parameters) or self._fail("cannot make a context")
        if adapter is not None:
            lora = self._library.llama_adapter_lora_init(self._model, adapter.encode()) or self._fail(f"cannot load {adapter}")
            failed = self._library.llama_set_adapters_lora(self._context, (ctypes.c_void_p * 1)(lora), 1, (ctypes.c_float * 1)(1.0))
            if failed:
                self._fail(f"cannot use {adapter}")

    def _on_log(self, level: int, text: bytes, _: object) -> None:
        if level >= GGML_LOG_LEVEL_ERROR:
            self._errors = self._errors[-20:] + [text.decode(errors="replace").strip()]

    def _fail(self, what: str) -> None:
        raise RuntimeError(f"llama.cpp {what}: {' '.join(self._errors) or 'no reason given'}")

    def reset(self) -> None:
        self._length = 0
        self._library.llama_memory_clear(self._library.llama_get_memory(self._context), True)

    def append(self, ids: list[int], all_rows: bool) -> np.ndarray:
        """Logits [T, V] of every new token, or [1, V] of the last."""
        if self._length + len(ids) > self.context_length:
            raise ValueError(f"{self._length + len(ids)} tokens do not fit a context of {self.context_length}")
        if not all(0 <= token < self.vocabulary for token in ids):
            raise ValueError(f"a token id lies outside the vocabulary of {self.vocabulary}")
        rows = []
        for start in range(0, len(ids), MAX_BATCH):
            part = ids[start:start + MAX_BATCH]
            wanted = [all_rows or start + i + 1 == len(ids) for i in range(len(part))]
            tokens = (ctypes.c_int32 * len(part))(*part)
            positions = (ctypes.c_int32 * len(part))(*range(self._length, self._length + len(part)))
            flags = (ctypes.c_int8 * len(part))(*wanted)
            status = self._library.llama_decode(self._context, Batch(len(part), tokens, None, positions, None, None, flags))
            if status != 0:
                self._fail(f"llama_decode returned {status}")
            self._length += len(part)
            if any(wanted):
                found = self._library.llama_get_logits(self._context)
                rows.append(np.ctypeslib.as_array(found, (sum(wanted), self.vocabulary)).copy())
        return np.concatenate(rows)

    def logits(self, ids: list[int]) -> np.ndarray:
        self.reset()
        return self.append(ids, all_rows=True)

    def tokenize(self, text: str | bytes) -> list[int]:
        raw = text.encode() if isinstance(text, str) else text
        vocabulary = self._library.llama_model_get_vocab(self._model)
        out = (ctypes.c_int32 * (32 * len(raw) + 8))()  # a normaliser may lengthen the text
        count = self._library.llama_tokenize(vocabulary, raw, len(raw), out, len(out), False, True)
        if count < 0:
            self._fail(f"cannot tokenize {len(raw)} bytes")
        return list(out[:count])

    def detokenize(self, ids: list[int]) -> str:
        return self.detokenize_bytes(ids).decode(errors="replace")

    def detokenize_bytes(self, ids: list[int]) -> bytes:
        out = ctypes.create_string_buffer(64 * len(ids) + 64)
        vocabulary = self._library.llama_model_get_vocab(self._model)
        count = self._library.llama_detokenize(vocabulary, (ctypes.c_int32 * len(ids))(*ids), len(ids), out, len(out), False, True)
        if count < 0:
            self._fail(f"cannot detokenize {len(ids)} tokens")
        return out.raw[:count]

    def end_tokens(self) -> tuple[list[int], int | None]:
        """(every token that ends generation, the one that the file names)."""
        vocabulary = self._library.llama_model_get_vocab(self._model)
        stop = [token for token in range(self.vocabulary) if self._library.llama_vocab_is_eog(vocabulary, token)]
        end = self._library.llama_vocab_eos(vocabulary)
        return stop, end if end >= 0 else None

    def close(self) -> None:
        if self._context is not None:
            self._library.llama_free(self._context)
        self._library.llama_model_free(self._model)
