"""From text to index terms."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings, strategies as st

from repro_rl.envs.webshop.search import analyzer as analyzer_module
from repro_rl.envs.webshop.search.analyzer import STOP_WORDS, analyze, tokens
from support.webshop_text import PIECES

# Text -> index terms, as Lucene 8.11 (Anserini 0.14.3, its English analyzer) printed them.
LUCENE = [
    ("The women's shoes aren't men’s OR kids＇S", "women shoe aren't men kid"),
    ('28" x 28", under $30.00, 4.5-star', "28 x 28 under 30.00 4.5 star"),
    ("wi-fi 802.11ac a.b 1.a x1.5y", "wi fi 802.11ac a.b 1 x1.5y"),
    ("node.js U.S.A. e.g. a..b", "node.j u.s.a e.g b"),
    ("3,000 1,2,a 1;2 a;b 12:30 a:b", "3,000 1,2 1;2 b 12 30 a:b"),
    ("_private snake_case __ x_", "_privat snake_cas x_"),
    ("it's o'neill 'quoted' rock'n'roll", "o'neil quot rock'n'rol"),
    ("c++ c# a&b and/or 50%", "c c b 50"),
    (
        "machine washable decorative pillows printing technology",
        "machin washabl decor pillow print technolog",
    ),
    ("running ran easily skies ties agreed feed", "run ran easili ski ti agre feed"),
    (
        "relational conditional vietnamization triplicate formalize adjustment",
        "relat condit vietnam triplic formal adjust",
    ),
    ("geology possibly archaeologies ably bowls", "geologi possibl archaeolog abli bowl"),
    ("ss as is by sky dying cc y yy", "ss sky dy cc y yy"),
    ("www.example.com/a?b=1 me@x.org", "www.example.com b 1 me x.org"),
    ("\ttab\nline\r\x00nul\x1funit", "tab line nul unit"),
    ("Café naïve résumé Ångström", "café naïv résumé ångström"),
    ("ΣΊΣΥΦΟΣ ΟΔΟΣ", "σίσυφοσ οδοσ"),
    ("İstanbul IŞIK ılık", "istanbul işik ılık"),
    ("Привет, мир! Ёлки", "привет мир ёлки"),
    (
        "\u05e9\u05dc\u05d5\u05dd \u05d2'\u05d5\u05e8\u05d2' \u05e6\u05d4\"\u05dc",
        "\u05e9\u05dc\u05d5\u05dd \u05d2'\u05d5\u05e8\u05d2' \u05e6\u05d4\"\u05dc",
    ),
    (
        "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 \u0661\u0662\u0663",
        "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 \u0661\u0662\u0663",
    ),
    (
        "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
        "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
    ),
    (
        "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0e04\u0e23\u0e31\u0e1a abc",
        "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0e04\u0e23\u0e31\u0e1a abc",
    ),
    ("\u0eaa\u0eb0\u0e9a\u0eb2\u0e8d\u0e94\u0eb5", "\u0eaa\u0eb0\u0e9a\u0eb2\u0e8d\u0e94\u0eb5"),
    ("\u1001\u103a\u1005\u103a\u1010\u101a\u103a", "\u1001\u103a\u1005\u103a\u1010\u101a\u103a"),
    ("漢字かなカタカナ", "漢 字 か な カタカナ"),
    ("東京タワー 333m", "東 京 タワー 333m"),
    ("ｶﾀｶﾅ １２３ ＡＢＣ", "ｶﾀｶﾅ １２３ ａｂｃ"),
    ("한국어 텍스트 3.5인치", "한국어 텍스트 3.5인치"),
    ("ア_イ a_漢", "ア_イ a_ 漢"),
    ("★ soft ✔ warm ™ ® ©2021", "★ soft ✔ warm ™ ® © 2021"),
    ("【Material】100% cotton", "materi 100 cotton"),
    ("👍 👍\U0001f3fd \U0001f3fd", "👍 👍\U0001f3fd \U0001f3fd"),
    ("👩\u200d👩\u200d👧 family", "👩\u200d👩\u200d👧 famili"),
    ("\U0001f1fa\U0001f1f8\U0001f1e9\U0001f1ea \U0001f1fa", "\U0001f1fa\U0001f1f8 \U0001f1e9\U0001f1ea"),
    ("1\ufe0f\u20e3 #\ufe0f\u20e3 * \ufe0f", "1\ufe0f\u20e3 #\ufe0f\u20e3"),
    ("❤\ufe0f ☕\ufe0e", "❤\ufe0f ☕"),
    ("a\u200db \u200d", "a\u200db"),
    ("soft\u00adhyphen zero\u200bwidth", "soft\u00adhyphen zero width"),
    ("e\u0301te\u0301 \u0301", "e\u0301te\u0301"),
    ("ℹ Ⓜ Ⓜ\u200d👩", "ℹ ⓜ ⓜ\u200d👩"),
    ("10½ x² ①②", "10 x"),
    ("a·b l·l 1·2", "a·b l·l 1 2"),
    ("“quoted” ‘single’ don‘t", "quot singl don‘t"),
    ("1\u066b5 1,5 \u0663\u066b\u0665", "1\u066b5 1,5 \u0663\u066b\u0665"),
    ("𝐁𝐨𝐥𝐝 𝐁s 𐐀𐐁", "𝐁𝐨𝐥𝐝 𝐁 𐐨𐐩"),
    ("ǅ ﬁne ß ẞ", "ǆ ﬁne ß ß"),
    ("a\u202fb a‿b", "a\u202fb a‿b"),
    ("x\u00a0y\u3000z", "x y z"),
    ("nbsp&nbsp;html&#39;s", "nbsp nbsp html 39 s"),
    ("Ⅳ ⅳ ª º µ", "ⅳ ⅳ ª º µ"),
    ("o’clock women`s ´", "o’clock women s"),
    ("'s ’s s's", "s s s"),
    ("to be or not to be", ""),
    ("TheThe THE thE", "theth"),
    ("ⵣ ⴰⵎⴰⵣⵉⵖ ሰላም", "ⵣ ⴰⵎⴰⵣⵉⵖ ሰላም"),
    (
        "\u1781\u17d2\u1798\u17c2\u179a \u09ad\u09be\u09b7\u09be \u0ba4\u0bae\u0bbf\u0bb4\u0bcd",
        "\u1781\u17d2\u1798\u17c2\u179a \u09ad\u09be\u09b7\u09be \u0ba4\u0bae\u0bbf\u0bb4\u0bcd",
    ),
    ("㍿ ㌔ ㊗ 〒 〰", "㌔ ㊗ 〰"),
]


@pytest.mark.parametrize(("text", "terms"), LUCENE)
def test_terms_equal_lucenes(text: str, terms: str) -> None:
    assert analyze(text) == terms.split(" " if terms else None)


def test_terms_of_special_texts() -> None:
    """The words of UAX #29, then: no possessive, lower case, no stop words, stems."""
    assert analyze("The 2-pack of Women's RUNNING shoes, size 7.5 (U.S.)") == [
        *("2", "pack", "women", "run", "shoe", "size", "7.5", "u."),
    ]
    assert analyze(" ".join(STOP_WORDS)) == []
    assert len(STOP_WORDS) == 33
    assert analyze("") == analyze("\x00\ud800 ... ___ \u0301") == []


def test_long_words_are_split() -> None:
    """Lucene looks at 255 UTF-16 units: a longer word is cut there, and a rule that needs more fails."""
    assert tokens("x" * 600) == ["x" * 255, "x" * 255, "x" * 90]
    assert tokens("x" * 254 + "'ab") == ["x" * 254, "ab"]
    assert tokens("x" * 253 + "'ab") == ["x" * 253 + "'a", "b"]
    assert tokens("é" * 256) == ["é" * 255, "é"]
    assert tokens("𝐁" * 128) == ["𝐁" * 127, "𝐁"]  # two units each
    assert tokens("_" * 300 + "z") == ["_" * 254 + "z"]


@pytest.mark.parametrize("text", [text for text, _ in LUCENE])
def test_words_do_not_need_possessive_groups(text, monkeypatch):
    """Before 3.11.5 CPython matches them wrongly; the way round them finds the same words."""
    monkeypatch.setattr(analyzer_module, "_ASCII", analyzer_module._ascii_words(native=False))
    monkeypatch.setattr(analyzer_module, "_WIDE", analyzer_module._grammar(native=False))
    analyzer_module._short_piece.cache_clear()
    around = tokens(text)
    monkeypatch.undo()
    analyzer_module._short_piece.cache_clear()
    assert around == tokens(text)


WIDE = analyzer_module._grammar(native=False)


@pytest.mark.skipif(not analyzer_module._POSSESSIVE_WORKS, reason="this Python has only the one grammar")
@given(st.text("AHLNKXEBZVTGWQCDUIFPMYRS-", max_size=60))
def test_both_grammars_agree(classes: str) -> None:
    native = [match.span(1) for match in analyzer_module._WIDE.finditer(classes)]
    assert [match.span(1) for match in WIDE.finditer(classes)] == native


@settings(deadline=None)
@given(PIECES)
def test_any_text_has_terms(text: str) -> None:
    """Total, the same each time, and words come in the text's order without overlap."""
    assert analyze(text) == analyze(text)
    position = 0
    for word in tokens(text):
        position = text.index(word, position) + len(word)
    joined = tokens(text) + tokens("zz 7")
    assert tokens(f"{text} zz 7") == joined  # a space always ends a word


@pytest.mark.parametrize(
    "unit", ["_", "\u203f", "a.", "é'", 'א"', "★\ufe0f\u200d", "Ⓜ\u200d", "#\u0301", "\u200d", "_\u0301"]
)
def test_hostile_text_takes_linear_time(unit: str) -> None:
    start = time.process_time()  # CPU time: a busy machine does not count
    analyze(unit * (20_000 // len(unit)) + "!")
    assert time.process_time() - start < 10, "quadratic matching takes minutes"
