"""report.html in a browser: no console error, no request, no empty plot, nothing of a row executed or shown without leave.

  report_test.py WRITE_REPORT [--keep DIR]
Chromium runs headless; with --keep the run folders and screenshots stay in DIR, to be looked at.
"""
import argparse
import html.parser
import http.server
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import synthetic_run

parser = argparse.ArgumentParser()
parser.add_argument("write_report")
parser.add_argument("--keep", type=pathlib.Path)
arguments = parser.parse_args()
WORK = arguments.keep or pathlib.Path(tempfile.mkdtemp(prefix="graft_report_"))
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FORBIDDEN_TAGS = {"script", "img", "iframe", "object", "embed", "form", "input", "base", "audio", "video", "source", "image", "use", "foreignobject"}


class Page(html.parser.HTMLParser):
    """What the page consists of: tags, attributes, paths of the plots, visible text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.series, self.plots, self.text, self.first = set(), [], [], 0, [], None
        self.in_body = self.silent = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes.items()]
        self.in_body |= tag == "body"
        self.silent = tag == "style"
        self.plots += tag == "svg"
        if "series" in (attributes.get("class") or "").split():
            self.series.append(attributes.get("d") or "")

    def handle_endtag(self, tag):
        self.silent = False

    def handle_data(self, data):
        if self.in_body and not self.silent and data.strip():
            self.first = self.first or data.strip()
            self.text.append(data)


def write_report(name, **options):
    run = WORK / name
    if run.exists():
        shutil.rmtree(run)
    synthetic_run.write(run, **options)
    subprocess.run([arguments.write_report, str(run)], check=True)
    return run / "report.html"


def open_in_browser(url, screenshot):
    profile = tempfile.mkdtemp(prefix="graft_chromium_")
    try:
        done = subprocess.run(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}",
             "--disable-background-networking", "--disable-component-update", "--no-first-run", "--enable-logging=stderr", "--v=0",
             "--window-size=1200,5200", f"--screenshot={screenshot}", url],
            capture_output=True, text=True, timeout=240)
    finally:
        shutil.rmtree(profile, ignore_errors=True)
    return done.returncode, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


class ReportTest(unittest.TestCase):
    def check_page(self, page):
        self.assertFalse(page.tags & FORBIDDEN_TAGS)
        for tag, name, value in page.attributes:
            self.assertFalse(name.startswith("on"), (tag, name))
            if name in ("href", "src", "xlink:href", "action", "data", "poster", "srcset"):
                self.assertEqual(value, "data:,", (tag, name))
            self.assertNotRegex(value, r"(?i)javascript:|url\(")
        self.assertGreater(page.plots, 0)
        self.assertGreaterEqual(len(page.series), page.plots)
        for path in page.series:
            self.assertRegex(path, r"^M[\d.]+ [\d.]+.+", "an empty plot")
            self.assertNotRegex(path, "nan|inf")

    def test_no_rows_without_leave(self):
        file = write_report("plain")
        text = file.read_text()
        page = Page(text)
        self.check_page(page)
        self.assertEqual(page.first, "This report contains no rows of the training or test data.")
        self.assertNotIn("ROWTEXT", text)
        self.assertNotIn("where is my parcel", text)
        self.assertEqual(page.plots, 5)   # loss, rate, gradient norm, speed, lengths
        shown = " ".join(page.text)
        for expected in ("3 of 4", "gguf:F16", "llama.cpp b9371", "failed", "llama-server -m exports/model-F16.gguf", "no label",
                         "TF-IDF + logistic regression", "7 min 29 s", "602 MB", "a7" * 32, "billing"):
            self.assertIn(expected, shown)
        self.assertNotRegex(text, r"https?://")
        self.assertEqual(file.stat().st_mode & 0o777, 0o600)

    def test_rows_with_leave_are_escaped(self):
        text = write_report("hostile", examples=True, hostile=True).read_text()
        page = Page(text)
        self.check_page(page)
        self.assertTrue(page.first.startswith("This report contains rows"))
        self.assertIn("ROWTEXT", text)
        self.assertIn("&lt;script&gt;fetch(&#39;http://evil.example/&#39;)&lt;/script&gt;", text)
        self.assertNotIn("<script", text)
        self.assertNotIn("<img", text)
        self.assertNotIn("\x07", text)

    def test_a_row_as_mask_example_needs_leave(self):
        run = write_report("mask").parent
        plan = (run / "plan.json").read_text()
        (run / "plan.json").write_text(plan.replace('"built-in"', '"row"'))
        subprocess.run([arguments.write_report, str(run)], check=True)
        self.assertNotIn("my invoice shows", (run / "report.html").read_text())

    def test_partial_and_broken_runs(self):
        run = WORK / "partial"
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5, "learning_rate": 0.001}\n{"step": 2, "lo')
        (run / "plan.json").write_text("[1, 2")
        (run / "evaluation.json").write_text('{"after": {"accuracy": "x"}, "labels": 3, "confusion": [[1], 2], "per_label": [3], "answers": 1}')
        subprocess.run([arguments.write_report, str(run)], check=True)
        text = (run / "report.html").read_text()
        self.check_page(Page(text))
        self.assertIn("plan.json could not be read", text)
        self.assertEqual(subprocess.run([arguments.write_report, str(run / "missing")], capture_output=True).returncode, 1)

    @unittest.skipUnless(CHROMIUM, "chromium is not installed")
    def test_opens_without_error_or_request(self):
        """Served over HTTP, so that a request of any kind would be seen; the hostile page, so that anything executable would run."""
        run = write_report("browser", examples=True, hostile=True).parent
        requests = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=str(run))

            def do_GET(self):
                requests.append(self.path)
                super().do_GET()

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        picture = run / "report.png"
        code, console = open_in_browser(f"http://127.0.0.1:{server.server_port}/report.html", picture)
        server.shutdown()
        server.server_close()
        self.assertEqual(code, 0)
        self.assertEqual(console, [])
        self.assertEqual(requests, ["/report.html"])
        self.assertGreater(picture.stat().st_size, 50_000)   # a drawn page, not a blank one


if __name__ == "__main__":
    try:
        result = unittest.main(argv=[sys.argv[0], "-v"], exit=False).result
    finally:
        if not arguments.keep:
            shutil.rmtree(WORK, ignore_errors=True)
    sys.exit(not result.wasSuccessful())
