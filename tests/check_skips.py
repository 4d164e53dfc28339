#!/usr/bin/env python3
"""check_skips.py REPORT.xml ALLOWED.txt: fails where ctest skipped a test that the list does not allow, or ran none."""
import fnmatch
import sys
import xml.etree.ElementTree as xml


def main(report: str, allowed_file: str) -> int:
    with open(allowed_file, encoding="utf-8") as file:
        patterns = [line.split("#")[0].strip() for line in file]
    patterns = [pattern for pattern in patterns if pattern]
    cases = xml.parse(report).getroot().findall("testcase")
    skipped = [case.get("name") for case in cases if case.get("status") in ("notrun", "disabled") or case.find("skipped") is not None]
    wrong = [name for name in skipped if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    for name in wrong:
        print(f"test: {name} was skipped or not run, and {allowed_file} does not allow it", file=sys.stderr)
    if len(cases) == len(skipped):
        print(f"test: no test ran ({len(skipped)} skipped)", file=sys.stderr)
        return 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
