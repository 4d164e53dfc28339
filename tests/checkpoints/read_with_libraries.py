"""Reads files that graft wrote with the official libraries; prints what they found as JSON.

usage: read_with_libraries.py safetensors FILE SAME   (SAME: the library's own file of the same tensors is written there)
       read_with_libraries.py gguf FILE
"""
import json
import sys

if sys.argv[1] == "safetensors":
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(sys.argv[2], framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        save_file(tensors, sys.argv[3], metadata=file.metadata())
    print(json.dumps({name: [str(tensor.dtype), list(tensor.shape)] for name, tensor in tensors.items()}))
else:
    import gguf

    reader = gguf.GGUFReader(sys.argv[2])
    print(json.dumps({
        "fields": {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")},
        "types": {name: [int(kind) for kind in field.types] for name, field in reader.fields.items()},
        "tensors": {t.name: [t.tensor_type.name, [int(n) for n in t.shape], t.data.tobytes().hex()] for t in reader.tensors},
    }))
