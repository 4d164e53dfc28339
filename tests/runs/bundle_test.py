#!/usr/bin/env python3
"""tools/bundle: what it makes runs where the build, its LibTorch and the network are not there (needs root for the namespaces).

  tests/runs/bundle_test.py --graft PROGRAM
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import graft_program

ROOT = pathlib.Path(__file__).resolve().parents[2]
SKIP = 77


def hidden(command: str, folder: pathlib.Path) -> subprocess.CompletedProcess:
    """Runs it in namespaces without a network, with an empty folder in place of .deps and of build/."""
    empty = folder / "empty"
    empty.mkdir(exist_ok=True)
    inside = f"mount --bind {empty} {(ROOT / '.deps').resolve()} && mount --bind {empty} {ROOT / 'build'} && cd / && {command}"
    return subprocess.run(["unshare", "--mount", "--net", "sh", "-c", inside], capture_output=True, text=True, timeout=600)


class Bundle(unittest.TestCase):
    def setUp(self) -> None:
        self.scratch = tempfile.TemporaryDirectory(prefix="graft-bundle-")
        self.folder = pathlib.Path(self.scratch.name)
        self.addCleanup(self.scratch.cleanup)

    def bundle(self, *arguments: str) -> str:
        made = subprocess.run([ROOT / "tools/bundle", "--out", self.folder / "graft", *arguments], capture_output=True, text=True, timeout=1800)
        self.assertEqual(made.returncode, 0, made.stderr)
        return made.stdout

    def test_archive_runs_without_build_and_network(self) -> None:
        self.bundle("--with-libtorch")
        archive = self.folder / "graft.tar.gz"
        subprocess.run(["rm", "-rf", self.folder / "graft"], check=True)
        subprocess.run(["tar", "-xzf", archive, "-C", self.folder], check=True)
        bundle = self.folder / "graft"
        sums = subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=bundle, capture_output=True, text=True)
        self.assertEqual(sums.returncode, 0, sums.stdout + sums.stderr)
        version = hidden(f"{bundle}/bin/graft --version", self.folder)
        self.assertEqual(version.returncode, 0, version.stderr)
        self.assertIn("graft", version.stdout)
        tests = hidden(f"{bundle}/bin/test_kernels --gtest_filter='RmsNorm*:*Attention*'", self.folder)
        self.assertEqual(tests.returncode, 0, tests.stdout[-2000:] + tests.stderr[-2000:])
        for licence in ("torch-", "libhdf5", "libyaml-cpp", "graft"):
            self.assertTrue(any(p.name.startswith(licence) for p in (bundle / "licences").iterdir()), licence)

    def test_folder_needs_the_same_libtorch(self) -> None:
        self.bundle()
        size = sum(p.stat().st_size for p in (self.folder / "graft").rglob("*") if p.is_file())
        self.assertLess(size, 60 << 20)
        without = hidden(f"{self.folder}/graft/bin/graft --version", self.folder)
        self.assertEqual(without.returncode, 3)
        self.assertIn("set GRAFT_LIBTORCH", without.stderr)
        torch = next((ROOT / ".deps/python/lib").glob("python3*")) / "site-packages/torch"
        other = self.folder / "elsewhere"
        other.mkdir()
        subprocess.run(["cp", "-rL", torch / "lib", other / "lib"], check=True)
        given = hidden(f"GRAFT_LIBTORCH={other} {self.folder}/graft/bin/graft --version", self.folder)
        self.assertEqual(given.returncode, 0, given.stderr)


if __name__ == "__main__":
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True).returncode != 0:
        print("namespaces need root")
        sys.exit(SKIP)
    graft_program.main()
