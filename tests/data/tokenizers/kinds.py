"""Texts by kind: each kind alone finds what a mixture hides.

    kinds(count) -> {name: count different strings}, the same ones at every call
    invalid_bytes(count) -> count different byte strings that are not UTF-8
"""
import functools
import random

from texts import CODE, WORDS

LATIN = "the of a Training I'll don't RÉSUMÉ naïve straße x1 HTTPServer 3.14 2026-11-22 , . : ; ! ? - _ / ( ) \" '".split()
HAN = [(0x4E00, 0xA000), (0x3400, 0x4DC0), (0xF900, 0xFB00), (0x20000, 0x2A6E0), (0x30000, 0x323B0), (0x2E80, 0x2FE0)]
KANA = [(0x3041, 0x3097), (0x30A1, 0x30FB), (0x3099, 0x30A0), (0x30FB, 0x3100), (0xFF66, 0xFFA0), (0x31F0, 0x3200)]
HANGUL = [(0xAC00, 0xD7A4), (0x1100, 0x1200), (0x3130, 0x3190), (0xA960, 0xA97D), (0xD7B0, 0xD7FC)]
CJK_SIGNS = [(0x3000, 0x3040), (0xFF00, 0xFFF0), (0x3200, 0x3400), (0xFE30, 0xFE50)]
ARABIC = [(0x0620, 0x064B), (0x0671, 0x06D4), (0x0750, 0x0780), (0xFB50, 0xFE00), (0xFE70, 0xFF00), (0x05D0, 0x05EB), (0x0700, 0x0750)]
ARABIC_MARKS = [(0x064B, 0x0660), (0x06D6, 0x06EE), (0x08D3, 0x0900), (0x0591, 0x05C8), (0x0610, 0x061B)]
ARABIC_SIGNS = ["،", "؛", "؟", "٪", "ـ", "\u200c", "\u200d", "\u200f", "\u202b", "\u202c", "﷽", "ﷺ", "٠١٢٣", "۴۵۶", " ", " ", "\n"]
EMOJI = [(0x1F300, 0x1F650), (0x1F680, 0x1F700), (0x1F900, 0x1FB00), (0x2600, 0x27C0), (0x2190, 0x2200), (0x2B00, 0x2B60), (0x1F000, 0x1F200)]
SEQUENCES = ["👩‍👩‍👧‍👦", "🏳️‍🌈", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🇩🇪", "🇫🇷🇯🇵", "👍🏽", "🤷🏾‍♀️", "❤️", "❤︎", "1️⃣", "#️⃣", "👨🏿‍🚀", "🧑‍🤝‍🧑", "©️", "™", "🫱🏻‍🫲🏿"]
MARKS = [(0x300, 0x370), (0x1AB0, 0x1ACF), (0x1DC0, 0x1E00), (0x20D0, 0x20F1), (0xFE20, 0xFE30), (0x0591, 0x05BE), (0x064B, 0x0656), (0x3099, 0x309B), (0x1D165, 0x1D16A)]
BRAHMIC = [(0x0900, 0x0980), (0x0980, 0x09FF), (0x0B80, 0x0C00), (0x0E00, 0x0E5C), (0x0F00, 0x0FDB), (0x1000, 0x10A0), (0x1780, 0x17FA), (0x11000, 0x11080)]
ALPHABETS = [(0x00C0, 0x0250), (0x0370, 0x0400), (0x0400, 0x0530), (0x0531, 0x0590), (0x10A0, 0x1100), (0x1200, 0x139A), (0x13A0, 0x1400), (0x1E00, 0x2000), (0x2C00, 0x2E00),
             (0xA640, 0xA6A0), (0xA720, 0xA800), (0xAB30, 0xABC0), (0x10400, 0x10500), (0x1D400, 0x1D800), (0x1E900, 0x1E960), (0x10780, 0x107C0)]
SPACE = ["\t", "\n", "\x0b", "\x0c", "\r", "\r\n", " ", "\x85", "\xa0", "\u1680", "\u180e", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\ufeff", "\u200b", "\x1c", "\x1f"] + [chr(c) for c in range(0x2000, 0x200B)]
DIGITS = [0x30, 0x30, 0x30, 0x30, 0x660, 0x6F0, 0x966, 0x9E6, 0xE50, 0xFF10, 0x1D7CE, 0x1D7F6, 0x1E950, 0x11DE0]
NUMBERS = [(0xB2, 0xB4), (0xBC, 0xBF), (0x2070, 0x207A), (0x2080, 0x208A), (0x2150, 0x218C), (0x2460, 0x24FF), (0x2776, 0x2794), (0x3007, 0x3008), (0x3021, 0x302A), (0x3220, 0x324F),
           (0x3251, 0x3260), (0x32B1, 0x32C0), (0x10100, 0x10134), (0x12400, 0x1246F), (0x1F100, 0x1F10D), (0x1FBF0, 0x1FBFA), (0x4E00, 0x4E11)]
NUMBER_SIGNS = [".", ",", "-", "+", "e", "E", "x", "0x", "%", "$", "€", ":", "/", " ", "  ", "'", "_", "^", "°", "−", "½"]
CODE_WORDS = """def class return if else for while import from lambda int void const char* std::vector<int> #include <stdio.h> self.value x_1 camelCase UPPER_CASE 0xFF 1e-9 3.0f null None true
== != <= >= << >> && || -> => :: ++ -- += *= **kw ... // /* */ # """.split() + ['"text\\n"', "'c'", "`tick`", "f'{x!r:>10}'", "R\"(raw)\"", "$HOME", "${x}", "&amp;", "<div>", "</div>", "@decorator", "\\u00e9", "r'\\d+'"]
CODE_SPACE = [" ", " ", " ", "", "", "\n", "\n    ", "\n\t", "\n\n", "\r\n", "  ", "\t", "        ", ";\n", "{\n", "}\n", "(", ")", "[", "]", ", "]
CONTROL = [(0x00, 0x20), (0x7F, 0xA0), (0xAD, 0xAE), (0x200B, 0x2010), (0x202A, 0x202F), (0x2060, 0x2070), (0xFFF0, 0x10000), (0xFDD0, 0xFDF0), (0xE000, 0xE100), (0xF0000, 0xF0100), (0x10FF00, 0x110000),
           (0xE0000, 0xE0200), (0xFE00, 0xFE10), (0x0378, 0x037A), (0x2065, 0x2066), (0x1FFFE, 0x20000), (0x40000, 0x40010)]


def one_of(rng, ranges):
    return chr(rng.randrange(*rng.choice(ranges)))


def some_of(rng, ranges, most=6):
    start, end = rng.choice(ranges)
    return "".join(chr(rng.randrange(start, end)) for _ in range(rng.randint(1, most)))


def cjk(rng):
    return rng.choice([lambda: some_of(rng, HAN), lambda: some_of(rng, [(0x4E00, 0x5800)]), lambda: some_of(rng, KANA), lambda: some_of(rng, HANGUL), lambda: one_of(rng, CJK_SIGNS),
                       lambda: rng.choice(["。", "、", "「", "」", "！", "？", "，", "：", "　", "\n", " ", "・", "〜", "々", "〇", "ー"]), lambda: rng.choice(LATIN),
                       lambda: rng.choice("日本語 中文分词 東京都 한국어 조선말 カタカナ ひらがな 你好 世界 学生 ありがとう 대한민국".split())])()


def arabic(rng):
    return rng.choice([lambda: some_of(rng, ARABIC), lambda: "".join(one_of(rng, ARABIC) + one_of(rng, ARABIC_MARKS) for _ in range(rng.randint(1, 4))), lambda: rng.choice(ARABIC_SIGNS),
                       lambda: rng.choice("العربية مرحبا السلام عليكم كتاب שָׁלוֹם עברית مُحَمَّد فارسی اردو".split()), lambda: rng.choice([" ", " ", "\n"] + LATIN)])()


def emoji(rng):
    return rng.choice([lambda: one_of(rng, EMOJI), lambda: some_of(rng, EMOJI), lambda: rng.choice(SEQUENCES), lambda: one_of(rng, EMOJI) + rng.choice("\ufe0f\ufe0e\u200d\u20e3🏻🏼🏽🏾🏿"),
                       lambda: chr(rng.randrange(0x1F1E6, 0x1F200)) * rng.randint(1, 3), lambda: rng.choice([" ", " ", "\n"] + LATIN)])()


def combining(rng):
    return rng.choice([lambda: rng.choice("aeiouyncsAEIOUYNCSkKzZÅéの한שبक") + "".join(one_of(rng, MARKS) for _ in range(rng.randint(1, 4))), lambda: some_of(rng, BRAHMIC, 8), lambda: one_of(rng, MARKS),
                       lambda: one_of(rng, [(0x1E00, 0x1F00), (0x1F00, 0x2000), (0xAC00, 0xD7A4), (0xC0, 0x250)]) + one_of(rng, MARKS),
                       lambda: chr(rng.randrange(0x1100, 0x1113)) + chr(rng.randrange(0x1161, 0x1176)) + rng.choice(["", chr(rng.randrange(0x11A8, 0x11C3))]),
                       lambda: rng.choice([" ", " ", "\n", "1"] + LATIN)])()


def whitespace(rng):
    return rng.choice([lambda: rng.choice(SPACE), lambda: rng.choice(SPACE) * rng.randint(1, 9), lambda: " " * rng.randint(1, 20), lambda: "\n" * rng.randint(1, 5), lambda: rng.choice(LATIN + ["日本", "é", "1", "'s"])])()


def digits(rng):
    zero = rng.choice(DIGITS)
    return rng.choice([lambda: "".join(chr(zero + rng.randrange(10)) for _ in range(rng.randint(1, 9))), lambda: str(rng.randint(0, 10 ** rng.randint(1, 15))), lambda: some_of(rng, NUMBERS, 3),
                       lambda: rng.choice(NUMBER_SIGNS), lambda: f"{rng.randint(0, 10 ** 9):,}", lambda: rng.choice(["a", " ", "é", "年", "th", "km"])])()


def code(rng):
    return rng.choice([lambda: rng.choice(CODE_WORDS) + rng.choice(CODE_SPACE), lambda: rng.choice(CODE_WORDS) + rng.choice(CODE_SPACE), lambda: rng.choice(CODE), lambda: rng.choice(CODE_SPACE),
                       lambda: "".join(chr(rng.randrange(0x21, 0x7F)) for _ in range(rng.randint(1, 8)))])()


def control(rng):
    return rng.choice([lambda: one_of(rng, CONTROL), lambda: some_of(rng, CONTROL), lambda: rng.choice([" ", "\n"] + LATIN), lambda: chr(rng.randrange(0x20))])()


def alphabets(rng):
    return rng.choice([lambda: some_of(rng, ALPHABETS, 8), lambda: rng.choice(WORDS), lambda: rng.choice(["'s", "'S", "'ſ", "'LL", "’s", "'ve", " ", " ", "\n"] + LATIN),
                       lambda: "".join(one_of(rng, ALPHABETS) for _ in range(rng.randint(1, 4)))])()


def different(count, make):
    found = {}
    while len(found) < count:
        found[make()] = None
    return list(found)


@functools.cache
def kinds(count):
    found = {}
    for part in (cjk, arabic, emoji, combining, whitespace, digits, code, control, alphabets):
        rng = random.Random("graft " + part.__name__)
        found[part.__name__] = different(count, lambda: "".join(part(rng) for _ in range(rng.randint(1, 10))))
    return found


BROKEN = [b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc3", b"\xe2\x82", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xef\xbf", b"\xf0\x9f\x98", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf",
          b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfe", b"\xff", b"\xff\xfe", b"\xe9", b"\xe4\xf6\xfc", b"\x93", b"\x94", b"\xf0\x9f", b"\xe3\x81"]


@functools.cache
def invalid_bytes(count):
    rng = random.Random("graft invalid")

    def part():
        kind = rng.random()
        if kind < 0.4:
            return rng.choice(BROKEN)
        if kind < 0.5:
            return rng.randbytes(rng.randint(1, 6))
        if kind < 0.7:  # a text that was cut in bytes
            raw = rng.choice([cjk, arabic, emoji, combining])(rng).encode()
            start = rng.randrange(len(raw))
            return raw[start:start + rng.randint(1, 5)]
        return rng.choice([cjk, arabic, emoji, whitespace, digits, code, control, alphabets])(rng).encode()

    def broken():
        while True:
            made = b"".join(part() for _ in range(rng.randint(1, 8)))
            try:
                made.decode()
            except UnicodeDecodeError:
                return made

    return different(count, broken)
