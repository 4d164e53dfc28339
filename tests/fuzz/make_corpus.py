"""Makes the binary inputs from which libFuzzer starts: corpus/gguf and corpus/safetensors beside this file.

usage: make_corpus.py   (needed only when a format changes: what it writes is committed)
"""
import pathlib
import shutil

import gguf
import numpy as np
from safetensors.numpy import save_file


def make_gguf(folder):
    random = np.random.default_rng(3)
    for index, kinds in enumerate([["F32"], ["F16", "Q8_0", "Q4_1"], ["Q4_0", "Q5_0", "Q5_1"], ["Q4_K", "Q5_K", "Q6_K", "Q2_K", "Q3_K"]]):
        writer = gguf.GGUFWriter(folder / f"{index}.gguf", "llama")
        writer.add_block_count(2)
        writer.add_float32("llama.rope.freq_base", 10000.0)
        writer.add_bool("tokenizer.ggml.add_bos_token", False)
        writer.add_array("tokenizer.ggml.tokens", ["a", "b", "\u0120the"])
        writer.add_array("tokenizer.ggml.token_type", [1, 1, 3])
        writer.add_uint64("some.u64", 1 << 40)
        if index == 1:
            writer.add_custom_alignment(64)
        for kind in kinds:
            quantization = gguf.GGMLQuantizationType[kind]
            elements, size = gguf.GGML_QUANT_SIZES[quantization]
            data = random.integers(0, 60, (2, size * max(1, 4 // size)), dtype=np.uint8)
            writer.add_tensor(f"blk.0.{kind}.weight", data, raw_dtype=quantization)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    for path in sorted(folder.glob("0.gguf")):  # version 2 has the same layout
        text = bytearray(path.read_bytes())
        text[4] = 2
        (folder / "version2.gguf").write_bytes(text)


def make_safetensors(folder):
    save_file({"a": np.zeros((2, 3), np.float32)}, folder / "one.safetensors")
    save_file({"a": np.zeros((2, 3), np.float16), "b": np.ones(4, np.int64), "none": np.zeros((0, 2), np.uint8)},
              folder / "three.safetensors", metadata={"format": "pt", "note": "\u00e9"})
    save_file({}, folder / "empty.safetensors")


def main():
    for name, make in [("gguf", make_gguf), ("safetensors", make_safetensors)]:
        folder = pathlib.Path(__file__).resolve().parent / "corpus" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder)


if __name__ == "__main__":
    main()
