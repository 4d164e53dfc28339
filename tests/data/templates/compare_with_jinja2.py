"""Generated templates must render as jinja2 does in transformers' environment: same text, same spans, same kind of error.

usage: compare_with_jinja2.py DRIVER [--templates N] [--seed S] [--show]
DRIVER is the program of template_driver.cpp. Exit 1 when a template differs; each difference is printed with the seed that makes it.
"""
import argparse
import copy
import json
import os
import random
import resource
import subprocess
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
from jinja2.exceptions import TemplateError, TemplateSyntaxError, UndefinedError  # noqa: E402
from transformers.utils import chat_template_utils  # noqa: E402

NOW = 1772701623
VARIABLES = {
    "s": "  Hello, World \n",
    "w": "one two  three",
    "u": "Zürich 晴れ 👩‍👧 Straße ΟΔΟΣ İ\u00a0\u2028x\u0085",
    "q": "it's \"quoted\" <b>&\\ \t\x01\x7f",
    "e": "",
    "n": 7,
    "z": 0,
    "m": -3,
    "big": 9007199254740993,
    "f": 2.5,
    "g": 1e-07,
    "h": 1e16,
    "t": True,
    "b": False,
    "none_value": None,
    "l": [3, 1, 2],
    "ls": ["b", "A", "c", "a"],
    "mixed": [1, "x", None, True, 2.0, [1], {"k": "v"}],
    "empty": [],
    "d": {"b": 1, "A": "x", "items": [1, 2], "c": None, "get": "g"},
    "nested": {"a": {"b": [{"c": "deep"}, {"c": "er"}]}},
    "ds": [{"n": "x", "v": 2}, {"n": "Y", "v": 1}, {"n": "z"}, {"n": "a", "v": None}],
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi <there>"},
        {"role": "assistant", "content": "Hello\n", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
        {"role": "tool", "content": None},
    ],
}
NAMES = list(VARIABLES) + ["missing", "i", "x"]
STRINGS = ["''", "'a'", '"o"', "', '", "'\\n'", "'  x '", "'é'", "'<&>'", "'l'", "'b'", "'items'", "'c'", "'%s'", "'{} {}'", "'n'", "'v'"]
FILTERS = ["upper", "lower", "title", "capitalize", "trim", "length", "list", "first", "last", "string", "tojson", "items", "safe",
           "int", "float", "abs", "sort", "unique", "reverse", "join", "count", "e", "min", "max", "sum", "round", "d", "dictsort",
           "wordcount"]
FILTERS_WITH = ["trim({s})", "default({e})", "default({e}, true)", "join({s})", "replace({s}, {s})", "replace({s}, {s}, {i})",
                "indent({i})", "indent({i}, true)", "indent(width={i}, blank=true)", "tojson(indent={i})",
                "tojson(ensure_ascii=true)", "tojson(separators=(',', ':'))", "tojson(sort_keys=true)", "map('upper') | list",
                "map(attribute={s}) | list", "map(attribute='n', default='?') | join(',')", "selectattr({s}) | list",
                "selectattr('v', 'equalto', {e}) | list", "selectattr('v', 'defined') | list", "rejectattr('v', 'none') | list",
                "select('string') | list", "reject('in', {e}) | list", "sort(attribute={s})", "sort(reverse=true)",
                "sort(case_sensitive=true)", "dictsort(by='value')", "dictsort(reverse=true)", "int({i})", "int(base=16)",
                "round({i})", "round({i}, 'floor')", "attr({s})", "batch({i}) | list", "center({i})", "min(attribute='v')",
                "unique(attribute='n') | list", "select | list", "map('length') | list", "sum(attribute='v')", "nosuchfilter"]
TESTS = ["defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number", "boolean", "true", "false", "integer",
         "float", "odd", "even", "lower", "upper", "callable", "escaped", "divisibleby({i})", "in({e})", "sameas({e})", "equalto({e})",
         "gt({e})", "ne({e})", "in {e}", "eq {i}"]
METHODS = ["strip()", "strip({s})", "lstrip()", "rstrip({s})", "split({s})", "split()", "split({s}, {i})", "rsplit({s}, {i})",
           "rsplit(none, 1)", "splitlines()", "startswith({s})", "endswith({s})", "startswith(({s}, {s}))", "replace({s}, {s})",
           "upper()", "lower()", "title()", "capitalize()", "swapcase()", "items()", "keys()", "values()", "get({s})", "get({s}, {e})",
           "find({s})", "rfind({s})", "index({s})", "count({s})", "join({e})", "format({e}, {e})", "zfill({i})", "ljust({i})",
           "rjust({i}, '*')", "center({i})", "partition({s})", "rpartition({s})", "removeprefix({s})", "isdigit()", "isalpha()",
           "isspace()", "islower()", "isupper()", "istitle()", "append({e})", "pop()", "update({e})", "copy()", "index({e})", "nosuch()"]
OPERATORS = ["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]


class Generator:
    def __init__(self, seed):
        self.r = random.Random(seed)

    def fill(self, pattern, depth):
        while "{s}" in pattern:
            pattern = pattern.replace("{s}", self.r.choice(STRINGS), 1)
        while "{i}" in pattern:
            pattern = pattern.replace("{i}", str(self.r.choice([0, 1, 2, 3, 9])), 1)
        while "{e}" in pattern:
            pattern = pattern.replace("{e}", self.expression(depth - 1), 1)
        return pattern

    def atom(self):
        r = self.r
        kind = r.randrange(12)
        if kind < 6:
            return r.choice(NAMES)
        if kind < 8:
            return r.choice(STRINGS)
        if kind == 8:
            return str(r.choice([0, 1, 2, 10, 255, "1.5", "2e3", "0x1f", "1_000"]))
        return r.choice(["true", "none", "[1, 2]", "('a', 'b')", "{'k': 1}", "[]", "{}", "()", "range(4)", "d.items()", "False"])

    def slice(self):
        part = lambda: self.r.choice(["", "0", "1", "-1", "2", "-2", "9"])  # noqa: E731
        return f"[{part()}:{part()}" + (f":{self.r.choice(['1', '2', '-1', '-2'])}]" if self.r.random() < 0.4 else "]")

    def expression(self, depth):
        r = self.r
        if depth <= 0:
            return self.atom()
        kind = r.randrange(15)
        inner = self.expression(depth - 1)
        if kind < 2:
            return f"{inner}.{self.fill(r.choice(METHODS), depth)}"
        if kind < 5:
            return f"{inner} | {self.fill(r.choice(FILTERS + FILTERS_WITH), depth)}"
        if kind == 5:
            return f"({inner} {r.choice(OPERATORS)} {self.expression(depth - 1)})"
        if kind == 6:
            return f"{inner} {r.choice(OPERATORS)} {self.expression(depth - 1)}"
        if kind == 7:
            return f"({inner} is {r.choice(['', 'not '])}{self.fill(r.choice(TESTS), depth)})"
        if kind == 8:
            return inner + self.slice()
        if kind == 9:
            return f"{inner}[{r.choice(['0', '-1', '1', repr('a'), repr('items'), 'i', repr('c')])}]"
        if kind == 10:
            return f"{inner}.{r.choice(['a', 'b', 'items', 'n', 'role', 'content', '0', 'append', '__class__', '_x'])}"
        if kind == 11:
            return f"({inner} if {self.expression(depth - 1)}{r.choice([' else ' + self.atom(), ''])})"
        if kind == 12:
            return f"{r.choice(['not ', '-', '+'])}{inner}"
        if kind == 13:
            return f"[{inner}, {self.atom()}]"
        return f"{{{r.choice(STRINGS)}: {inner}}}"

    def tag(self, text):
        return "{%" + self.r.choice(["", "", "-", "+"]) + f" {text} " + self.r.choice(["", "", "-"]) + "%}"

    def space(self):
        return self.r.choice(["", " ", "\n", "\n  ", "text ", "  \n\n", "é"])

    def statement(self, depth):
        r = self.r
        kind = r.randrange(16) if depth > 0 else 0
        body = lambda: self.body(depth - 1)  # noqa: E731
        value = self.expression(r.randrange(3))
        if kind < 5:
            return "{{" + r.choice(["", "-", " "]) + f" {value} " + r.choice(["", "-"]) + "}}"
        if kind < 7:
            return (self.tag("if " + value) + body() + (self.tag("elif " + self.atom()) + body() if r.random() < 0.3 else "")
                    + (self.tag("else") + body() if r.random() < 0.5 else "") + self.tag("endif"))
        if kind < 10:
            loop = r.choice(["{{ loop.index }}/{{ loop.last }}", "{{ loop.previtem }}{{ loop.nextitem is defined }}", "{{ i }}", "",
                             "{{ loop.first }}{{ loop.length }}", "{{ loop.revindex0 }}{{ loop.cycle('a', 'b') }}"])
            end = r.choice(["", "", "", self.tag("if i") + self.tag("break") + self.tag("endif"), self.tag("continue")])
            target = r.choice(["i", "i", "i", "i, x"])
            test = r.choice(["", "", " if i", " if i is string"])
            return (self.tag(f"for {target} in {r.choice([value, 'l', 'ls', 'ds', 'messages', 'd.items()', 'd'])}{test}") + loop + body()
                    + end + (self.tag("else") + body() if r.random() < 0.3 else "") + self.tag("endfor"))
        if kind < 12:
            return self.tag(f"set {r.choice(['x', 'i', 'n', 'y, x'])} = {value}")
        if kind == 12:
            return (self.tag("set ns = namespace(a=1, c=" + self.atom() + ")") + self.tag("set ns.b = " + value)
                    + body() + "{{ ns.a }}{{ ns.b }}{{ ns['c'] }}{{ ns.q }}")
        if kind == 13:
            call = r.choice(["{{ m1(1) }}", "{{ m1(p=2) }}", "{{ m1() }}", "{{ m1(1, 2, 3) }}", "{{ m1(o=4) }}",
                             "{% call m1(1) %}in{{ x }}{% endcall %}"])
            inner = r.choice(["{{ caller() if caller is defined }}", "", "{{ varargs }}", "{{ kwargs }}"])
            return self.tag("macro m1(p, o=" + self.atom() + ")") + "{{ p }}{{ o }}" + inner + body() + self.tag("endmacro") + call
        if kind == 14:
            return r.choice([self.tag("set x") + body() + self.tag("endset") + "{{ x | length }}",
                             self.tag("filter upper") + body() + self.tag("endfilter"),
                             self.tag("with x = " + self.atom()) + body() + self.tag("endwith"),
                             "{% raw %} {{ x }} {% endraw %}", "{#- note -#}", "{# note #}\n"])
        return self.tag("generation") + body() + self.tag("endgeneration")

    def body(self, depth):
        return "".join(self.space() + self.statement(depth) for _ in range(self.r.randrange(1, 4))) + self.space()

    def template(self):
        if self.r.random() < 0.5:
            return "{{ " + self.expression(self.r.randrange(1, 4)) + " }}"
        return self.body(self.r.randrange(1, 4))


def render(source):
    """What transformers gives: a dict like the driver's."""
    try:
        compiled = chat_template_utils._cached_compile_jinja_template(source)
    except (TemplateSyntaxError, SyntaxError) as error:
        return {"error": {"kind": "syntax", "type": "TemplateSyntaxError", "message": str(error)}}
    try:
        variables = copy.deepcopy(VARIABLES)  # jinja2's indent changes a list that it is given
        text, spans = chat_template_utils._render_with_assistant_indices(
            compiled, variables.pop("messages"), None, None, False, **variables)
        return {"text": text, "generation": [list(span) for span in spans]}
    except Exception as error:  # whatever a template raises is part of what is compared
        kind = "raise_exception" if type(error) is TemplateError else "runtime"
        return {"error": {"kind": kind, "type": type(error).__name__, "message": str(error)}}


def same_message(ours, theirs):
    """Python's own functions word wrong numbers and types of arguments in their own ways; the kind of error is compared there."""
    if ours == theirs:
        return True
    loose = ["argument", "expected", "must be", "unexpected keyword", "strip", "takes", "unhashable", "int()", "not supported", "unpack",
             "separator", "can't multiply", "codec", "iterable", "join", "concatenate", "sequence item", "get", "division", "modulo",
             "integer", "format", "subscript", "hashable", "indices"]
    return any(word in theirs for word in loose)


def compare(ours, theirs):
    """None when equal, 'skipped' when the comparison says nothing, else what differs."""
    if " at 0x" in json.dumps(theirs).lower():
        return "skipped"
    if ours.get("error", {}).get("kind") == "bound" or theirs.get("error", {}).get("type") == "MemoryError":
        return "skipped"  # jinja2 has no bounds
    # jinja2 folds a slice of a constant by another way, on which 1[:2] is undefined rather than an error.
    if "error" in ours and ("not subscriptable" in ours["error"]["message"] or "'slice'" in ours["error"]["message"]):
        return "skipped"
    if "error" in ours and "not supported" in ours["error"]["message"] and "between instances" not in ours["error"]["message"]:
        return "skipped"
    if "error" in theirs and theirs["error"]["type"] == "AssertionError":  # jinja2 itself fails
        return "skipped"
    if ("error" in ours) != ("error" in theirs):
        return "one renders, the other does not"
    if "error" in ours:
        a, b = ours["error"], theirs["error"]
        if a["kind"] != b["kind"]:
            return "kind of error"
        if a["kind"] == "syntax":
            return None
        if a["type"] != b["type"]:
            return "type of error"
        return None if same_message(a["message"], b["message"]) else "message"
    if ours["text"] != theirs["text"]:
        return "text"
    return None if ours["generation"] == theirs["generation"] else "spans"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("driver")
    parser.add_argument("--templates", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=10, help="differences to print")
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # [0] * 1000 * 1000 * 1000 fails rather than take the machine's memory
    seeds = range(args.seed, args.seed + args.templates)
    sources = [Generator(seed).template() for seed in seeds]
    variables = {**VARIABLES, "tools": None, "documents": None, "add_generation_prompt": False}
    lines = [json.dumps({"template": source, "variables": variables, "now": NOW}) for source in sources]
    done = subprocess.run([args.driver], input="\n".join(lines) + "\n", capture_output=True, text=True, check=True)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(sources), f"{len(results)} results of {len(sources)}"
    differences = skipped = texts = 0
    for seed, source, ours in zip(seeds, sources, results):
        theirs = render(source)
        problem = compare(ours, theirs)
        texts += "text" in theirs and problem is None
        if problem == "skipped":
            skipped += 1
        elif problem:
            differences += 1
            if differences <= args.show:
                print(f"--- seed {seed}: {problem}\n{source!r}\n  graft:  {json.dumps(ours)[:600]}\n  jinja2: {json.dumps(theirs)[:600]}")
    print(f"{len(sources)} templates: {texts} rendered alike, {len(sources) - texts - skipped - differences} failed alike, "
          f"{skipped} skipped, {differences} differ")
    assert texts > len(sources) // 4, "too few templates render to say anything"
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
