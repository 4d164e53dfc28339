"""Reads an importance matrix that graft wrote and writes another one as llama-imatrix lays it out, with gguf-py, for importance_matrix_test.cpp.

usage: importance_matrix_golden.py OURS.gguf THEIRS.gguf
"""
import sys

import gguf
import numpy as np

reader = gguf.GGUFReader(sys.argv[1])
tensors = {tensor.name: tensor for tensor in reader.tensors}
assert reader.fields["general.type"].contents() == "imatrix" and reader.fields["imatrix.datasets"].contents() == ["train.jsonl"]
assert reader.fields["imatrix.chunk_count"].contents() == 3 and reader.fields["imatrix.chunk_size"].contents() == 512
for name, shape, values in [("blk.0.ffn_down.weight.in_sum2", [4, 1], [2, 4, 6, 8]), ("blk.0.ffn_down.weight.counts", [1, 1], [4]),
                            ("blk.0.ffn_up_exps.weight.in_sum2", [3, 2], [1, 2, 3, 10, 20, 30]), ("blk.0.ffn_up_exps.weight.counts", [1, 2], [0, 10])]:
    tensor = tensors.pop(name)      # its shape: ggml's ne, columns first
    assert tensor.tensor_type == gguf.GGMLQuantizationType.F32 and list(tensor.shape) == shape and tensor.data.flatten().tolist() == values, name
assert not tensors

writer = gguf.GGUFWriter(sys.argv[2], "llama")
writer.add_string("general.type", "imatrix")
writer.add_array("imatrix.datasets", ["calibration.txt"])
writer.add_uint32("imatrix.chunk_count", 2)
writer.add_uint32("imatrix.chunk_size", 512)
# One matrix: ggml drops the dimension of size 1 behind the columns.
for name, values in [("blk.1.attn_q.weight.in_sum2", [256, 512]), ("blk.1.attn_q.weight.counts", [1024]),
                     ("blk.1.ffn_gate_exps.weight.in_sum2", [[10, 20], [0, 0], [5, 6]]), ("blk.1.ffn_gate_exps.weight.counts", [[10], [0], [2]])]:
    writer.add_tensor(name, np.array(values, dtype=np.float32))
for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
    step()
