"""What tests of the built program share: its path from --graft, settings as arguments, rows of the shipped tickets."""
import argparse
import pathlib
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TICKETS = ROOT / "recipes/data/support_tickets"
PROGRAM = ""      # set by main()


def run(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True)


def with_settings(settings: list[str]) -> list[str]:
    """["a=1", "b=2"] as --set a=1 --set b=2."""
    return [part for setting in settings for part in ("--set", setting)]


def ticket_source(path: pathlib.Path) -> str:
    """The tickets of a file as one entry of a recipe's data.train or data.test."""
    return f"{{path: {path}, format: labelled, text: text, label: queue, system: Name the queue of this support ticket., prompt: '{{text}}'}}"


def main() -> None:
    """unittest.main with --graft PROGRAM before its own arguments."""
    global PROGRAM
    parser = argparse.ArgumentParser()
    parser.add_argument("--graft", required=True)
    arguments, rest = parser.parse_known_args()
    PROGRAM = arguments.graft
    unittest.main(module="__main__", argv=[sys.argv[0], *rest])
