"""What Python's csv module reads, as JSON; and a Parquet file to read.

reference_tables.py csv FILE OUT.json | reference_tables.py parquet OUT.parquet
"""
import csv
import json
import sys


def write_parquet(path):
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({
        "text": pyarrow.array(["Hällo \"you\"", "line\nbreak", "NA"]),
        "label": pyarrow.array(["a", "b", "a"]).dictionary_encode(),
        "large": pyarrow.array(["x", None, ""], pyarrow.large_string()),
        "number": pyarrow.array([7, -1, 2**62]),
        "real": pyarrow.array([0.5, 1.25, None]),
        "truth": pyarrow.array([True, False, None]),
        "parts": pyarrow.array([[1], [], [2, 3]]),
    })
    parquet.write_table(table, path, row_group_size=2)   # two row groups: columns come in chunks


if sys.argv[1] == "parquet":
    write_parquet(sys.argv[2])
else:
    with open(sys.argv[2], newline="", encoding="utf-8") as source, open(sys.argv[3], "w", encoding="utf-8") as out:
        json.dump(list(csv.reader(source)), out)
