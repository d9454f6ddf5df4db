"""Porter's stemmer (M. F. Porter, "An algorithm for suffix stripping", 1980) with its author's extensions.

The extensions, which Lucene has too: ``-bli`` and ``-logi`` in step 2, and words of one or two letters are
not changed. (Snowball's "porter" has the original rules only.)
"""

from __future__ import annotations

# Endings and their replacements; the longest match decides.
_STEP2 = (
    "ational ate, tional tion, enci ence, anci ance, izer ize, bli ble, alli al, entli ent, eli e, "
    "ousli ous, ization ize, ation ate, ator ate, alism al, iveness ive, fulness ful, ousness ous, "
    "aliti al, iviti ive, biliti ble, logi log"
)
_STEP3 = "icate ic, ative -, alize al, iciti ic, ical ic, ful -, ness -"
_STEP4 = "al ance ence er ic able ible ant ement ment ent ion ou ism ate iti ous ive ize"


def _rules(text: str) -> tuple[tuple[str, str], ...]:
    pairs = [tuple(rule.split()) for rule in text.split(",")]
    return tuple(sorted(((a, b.strip("-")) for a, b in pairs), key=lambda pair: -len(pair[0])))


_RULES2, _RULES3 = _rules(_STEP2), _rules(_STEP3)
_ENDINGS4 = tuple(sorted(_STEP4.split(), key=len, reverse=True))


def _shape(word: str) -> str:
    """``v`` for each vowel, ``c`` for each consonant; y is a vowel after a consonant."""
    shape = ""
    for letter in word:
        vowel = letter in "aeiou" or (letter == "y" and shape[-1:] == "c")
        shape += "v" if vowel else "c"
    return shape


def _measure(stem: str) -> int:
    """How many times a consonant follows a vowel: Porter's m."""
    return _shape(stem).count("vc")


def _double(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and _shape(word)[-1] == "c"


def _short(word: str) -> bool:
    """Ends consonant, vowel, consonant other than w, x, y."""
    return len(word) > 2 and word[-1] not in "wxy" and _shape(word)[-3:] == "cvc"


def _plural_and_past(word: str) -> str:
    if word.endswith("s"):
        if word.endswith(("sses", "ies")):
            word = word[:-2]
        elif not word.endswith("ss"):
            word = word[:-1]
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) else word
    stem = word[:-2] if word.endswith("ed") else word[:-3] if word.endswith("ing") else None
    if stem is None or "v" not in _shape(stem):
        return word
    if stem.endswith(("at", "bl", "iz")):
        return stem + "e"
    if _double(stem):
        return stem if stem[-1] in "lsz" else stem[:-1]
    return stem + "e" if _measure(stem) == 1 and _short(stem) else stem


def _replace(word: str, rules: tuple[tuple[str, str], ...]) -> str:
    for ending, other in rules:
        if word.endswith(ending):
            stem = word[: -len(ending)]
            return stem + other if _measure(stem) else word
    return word


def _strip(word: str) -> str:
    for ending in _ENDINGS4:
        if word.endswith(ending):
            stem = word[: -len(ending)]
            if ending == "ion" and not stem.endswith(("s", "t")):
                return word
            return stem if _measure(stem) > 1 else word
    return word


def stem(word: str) -> str:
    """The stem of a lower-case word; empty only for an empty word."""
    if not word or max(word) <= "\uffff":
        return _stem(word)
    units = word.encode("utf-16-le", "surrogatepass")  # Lucene counts UTF-16 units; some letters take two
    pairs = "".join(map(chr, memoryview(units).cast("H")))
    return _stem(pairs).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _stem(word: str) -> str:
    if len(word) < 3:
        return word
    word = _plural_and_past(word)
    if word.endswith("y") and "v" in _shape(word[:-1]):
        word = word[:-1] + "i"
    word = _strip(_replace(_replace(word, _RULES2), _RULES3))
    if word.endswith("e"):
        measure = _measure(word)
        if measure > 1 or (measure == 1 and not _short(word[:-1])):
            word = word[:-1]
    if word.endswith("ll") and _measure(word) > 1:
        word = word[:-1]
    return word
