#!/usr/bin/env python3
"""Makes the goldens of one family (or of all) at test time.

  make_goldens.py --out DIR [FAMILY...]      a family is a file of families/; default: all
"""
import argparse
import importlib
import os
import pathlib
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


def families() -> list[str]:
    return sorted(path.stem for path in (HERE / "families").glob("*.py"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", default=families())
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    import torch
    from golden import make_case
    from gguf_golden import make_gguf_case
    from transformers.utils import logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    for family in arguments.families:
        module = importlib.import_module(f"families.{family}")
        for case in module.CASES:
            make_case(case, arguments.out)
            print(f"made {case.name}", flush=True)
        for case in getattr(module, "GGUF_CASES", []):
            make_gguf_case(case, arguments.out)
            print(f"made {case.name}", flush=True)


if __name__ == "__main__":
    main()
