"""Texts that find faults in tokenizers: every script that matters, white space, digits, code, control characters, added tokens.

    texts(special_tokens) -> a list of at least 2,000 strings, the same ones at every call.
"""
import os
import random
import unicodedata
from pathlib import Path

WORDS = """the of Training's I'll YOU'RE don't we've it'd he's SHE'LL camelCase HTTPServer XMLHttpRequest snake_case kebab-case résumé naïve façade
Überraschung straße ŁÓDŹ ÉCOLEécole écoleÉcole iPhone McDonald ｆｕｌｌｗｉｄｔｈ ﬁnance Ǆungla ǅabar ʼn ſoft 'ſ it'ſ O'ſullivan''s 日本語 中文分词 東京都 한국어 조선말
カタカナ ひらがな ｶﾀｶﾅ العربية مرحبا עברית שָׁלוֹם हिन्दी नमस्ते বাংলা தமிழ் ไทย ລາວ မြန်မာ ខ្មែរ አማርኛ Ελληνικά ΣΊΣΥΦΟΣ русский ЁЖИК ქართული Հայերեն
Tiếng Việt Vieết e\u0301 a\u0308\u0323 o\u0323\u0302 \u1112\u1161\u11ab \u1100\u1161 \u0915\u093c \u212b \u2126 \uf900 \u0958 \u00c5 \ufb1d 🙂 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 👍🏽 ❤️
🤷🏾‍♀️ ¹²³ ½ Ⅷ ⅷ ٣٤٥ १२३ 〇 ㊿ 𝟙𝟚 1 12 123 1234 12345 3.14159 1,000,000 0x1F 1e-9 v2.0.1 2026-11-22 a1b2 € $100 £5 ₿ © ™ № † ‰ ‽ ¿qué? ¡hola! « guillemets »
„Gänsefüßchen“ “quotes” ‘single’ … — – ― ′ ″ ⟨x⟩ ∀∃∑∫√∞≠≤≥ ←→⇒ ░▒▓ ① ⓐ ㈱ ㍿ ﷽ \u0345 \u200d \u200c \u200b \u2060 \ufeff \u00ad \u202e \u2028 \u2029 \u0085 \u00a0 \u3000 \u2003
\x00 \x01 \x07 \x0b \x0c \x1b \x1f \x7f \x80 \x9f \ufffd \ufffe \uffff \U0010ffff \U000e0001 \U0001f1e6 \U00020000 \U000323af \u0378 \U00011de0""".split()
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", " \n", "\n ", " \n\n  ", "\t\t", "\u00a0", "\u3000", " \u2028", "\r", "\x0b", "\x85", "\u2003 ", "        ", "\n\n\n\n"]
CODE = ["def f(x):\n    return x**2  # comment\n", "for (int i=0;i<10;++i) { a[i]+=1; }\r\n", "SELECT * FROM t WHERE a='b' AND c<>\"d\";", "<div class=\"x\">\n\t<p>Hi</p>\n</div>",
        "{\"key\": [1, 2.5, null, true], \"päth\": \"C:\\\\dir\\n\"}", "#include <vector>\nint main(){}", "x = lambda *a, **k: (a, k)", "$ grep -rn 'foo' ./src | sed 's/a/b/g'\n",
        "https://example.com/a?b=c&d=%20e#f", "user@example.com", "```python\nprint('hi')\n```\n", "\\frac{a}{b} + \\sum_{i=1}^{n} x_i", "// TODO!!! ??? ... ---- ==== ____", "a//b/*c*/d"]


def shared_texts():
    root = Path(os.environ.get("GRAFT_SHARED", Path(__file__).resolve().parents[4] / "shared"))
    found = []
    for pattern in ("data/**/*.md", "data/**/*.txt", "data/**/*.csv"):
        for path in sorted(root.glob(pattern)):
            found.append(path.read_text(encoding="utf-8", errors="replace"))
    return found


def random_text(rng, specials):
    parts = []
    for _ in range(rng.randint(1, 12)):
        kind = rng.random()
        if kind < 0.45:
            parts.append(rng.choice(WORDS))
        elif kind < 0.70:
            parts.append(rng.choice(SPACES))
        elif kind < 0.76:
            parts.append(str(rng.randint(0, 10 ** rng.randint(1, 12))))
        elif kind < 0.82:
            parts.append(rng.choice(CODE))
        elif kind < 0.90:
            # any assigned characters of one block, and then of all
            start = rng.choice([0x20, 0xA0, 0x300, 0x370, 0x590, 0x900, 0xE00, 0x1100, 0x1E00, 0x2000, 0x2190, 0x2460, 0x3040, 0x4E00, 0xAC00, 0xF900, 0xFF00,
                                0x10000, 0x11000, 0x1D400, 0x1F300, 0x1F900, 0x20000])
            parts.append("".join(chr(start + rng.randrange(256)) for _ in range(rng.randint(1, 6))))
        elif kind < 0.94:
            parts.append("".join(c for c in (chr(rng.randrange(0x30000)) for _ in range(4)) if not 0xD800 <= ord(c) < 0xE000))
        elif kind < 0.97:
            parts.append(rng.choice("aeoubnAEK") + "".join(rng.choice("\u0300\u0301\u0308\u0323\u0327\u0345\u0334\u20d0\u093c\u05b0\u064b\u0e38\u3099") for _ in range(rng.randint(1, 4))))
        elif specials:
            token = rng.choice(specials)
            parts.append(rng.choice([token, token, token[:-1], token[1:], token + token]))
    text = "".join(parts)
    return "".join(c for c in text if not 0xD800 <= ord(c) < 0xE000)


def texts(specials=(), count=2400):
    rng = random.Random(20261122)
    out = ["", " ", "  ", "\n", "a", "'", "''", "'s", "'S", "1", "12", "1234", "é", "e\u0301"] + WORDS + SPACES + CODE
    out += [" " + word for word in WORDS] + [word + "\n" for word in WORDS[:60]]
    out += [unicodedata.normalize("NFD", word) for word in WORDS]
    for document in shared_texts()[:40]:
        start = rng.randrange(max(1, len(document) - 2000))
        out.append(document[start:start + rng.randint(20, 2000)])
    out += ["x" * 300, " " * 700, "ab" * 500, "\n" * 130, "🙂" * 90, "1" * 200, "कि" * 100, "word " * 400]
    while len(out) < count:
        out.append(random_text(rng, list(specials)))
    return out
