"""The nouns of a product title, which decide whether a purchase is of the right type.

The original tags titles with spaCy's English model. That model is used when it is installed. Otherwise the
rules below, which follow spaCy's English tokenizer, split the title, and TextBlob's word list tags it.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

from repro_rl.errors import MissingDependencyError
from repro_rl.files import TABLE, read_yaml

LONGEST = 10_000  # characters of a title that are read; the rest is ignored
SPACY_MODELS = ("en_core_web_lg", "en_core_web_md", "en_core_web_sm")  # the first that loads is used
RULES = 1  # version of the token rules below; a part of cache keys, so raise it when the rules change

Tagger = Callable[[str], tuple[str, ...]]


def nouns(title: str) -> tuple[str, ...]:
    """The nouns and proper nouns of ``title``, lower case, in order. Total: never raises for any text.

    Duplicates are included, because the original divides by the number of nouns with duplicates.
    """
    # Lone surrogates, which spaCy cannot hash, become question marks.
    return _nouns(title[:LONGEST].encode("utf-8", "replace").decode("utf-8"))


def tagger_name() -> str:
    """Name and version of this process's tagger, for manifests and cache keys."""
    return _tagger()[0]


@lru_cache(maxsize=8192)
def _nouns(title: str) -> tuple[str, ...]:
    return _tagger()[1](title)


_lock = threading.Lock()
_loaded: list[tuple[str, Tagger]] = []


def _tagger() -> tuple[str, Tagger]:
    """(name, tagger), loaded once per process."""
    if not _loaded:
        with _lock:
            if not _loaded:
                _loaded.append(_spacy_tagger() or _bundled_tagger())
    return _loaded[0]


def _spacy_tagger() -> tuple[str, Tagger] | None:
    for name in SPACY_MODELS:
        if importlib.util.find_spec(name) is None:
            continue
        try:
            # Exclude only what cannot change a part of speech; tag rules may read the parser's output.
            model = importlib.import_module(name).load(exclude=["ner", "lemmatizer"])
            label = f"spacy {name} {model.meta['version']}"
        except Exception as error:  # a model made for another spaCy fails in many ways
            warnings.warn(f"The spaCy model {name} is installed but does not load: {error}", stacklevel=2)
            continue
        return label, partial(_by_model, model)
    return None


def _by_model(model: Any, title: str) -> tuple[str, ...]:
    return tuple(str(token.text).lower() for token in model(title) if token.pos_ in ("NOUN", "PROPN"))


def _bundled_tagger() -> tuple[str, Tagger]:
    try:
        parser = importlib.import_module("textblob.en").parser
    except ImportError as error:
        raise MissingDependencyError(
            f"WebShop's reward needs the nouns of product titles, and TextBlob cannot be imported ({error}). "
            f"Install it: pip install textblob"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # TextBlob does not close the file
        len(parser.lexicon)  # loads the word list now: another thread could see an incomplete one
    return f"textblob {version('textblob')}, token rules {RULES}", partial(_by_word_list, parser)


def _by_word_list(parser: Any, title: str) -> tuple[str, ...]:
    return tuple(str(word).lower() for word, tag in parser.find_tags(tokens(title)) if tag.startswith("NN"))


# Tokens. A title is split at white space. Punctuation is split off both ends of a piece until none is left or
# the rest is a fixed word. The rest is split at hyphens, slashes and so on between letters. Time is linear.

_LETTER = r"[^\W\d_]|[\u3000-\u303f]"  # the marks of Chinese and Japanese count as letters
_CAPITAL = "A-ZÀ-ÖØ-Þ"
_SMALL = rf"[^\W\d_{_CAPITAL}]"  # letters of scripts without case included
_QUOTE = "',\"`´‘’‚“”„«»「」『』（）〔〕【】《》〈〉⟦⟧"
_MARK = r",:;!?()\[\]{}<>_#*&¡¿…·，：；！？。、～،؛؟٪۔।"
_MONEY = "$£¥฿₠-₿﷼"
_SIGN = (  # symbols that are a token each, such as © ° ™ ★, and emoji
    "¦©®°\u2100-\u214f\u2195-\u21cd\u21d5-\u21f3\u2300-\u23db\u23e2-\u245f\u249c-\u24e9\u2500-\u2775"
    "\u2794-\u27bf\u2800-\u28ff\u2b00-\u2bff\ufffc\ufffd\U0001f000-\U0001faff"
)
_UNIT = (
    "k?m[²³]?|[dcm]m[²³]?|[nµ]m|ha|in|ft|yd|[kmµ]?g|lb|oz|t|m/s|km/h|kmh|mph|(?:h|k)?Pa|mbar|"
    "mb|MB|kb|KB|gb|GB|tb|TB|[TGMK%]"
)
_SHORT = 32  # pieces up to this length are cached: titles share most of their words
_FIXED = 12  # no fixed word is longer
_WINDOW = 8  # no ending (except periods) is longer, its left context included

_START = re.compile(rf"[§%=—–{_MARK}{_QUOTE}{_MONEY}{_SIGN}]|\+(?![0-9])|\.\.+|(?:US|C|A)\$")
_END = re.compile(
    rf"(?:[{_MARK}{_QUOTE}{_SIGN}—–]|['’][sS]|(?<=[0-9])(?:\+|(?:US|C|A)?[{_MONEY}]|{_UNIT})"
    rf"|(?<=°[CFKcfk])\.|(?<=[0-9%²+|\-{_MARK}{_QUOTE}])\.|(?<={_SMALL})\.|(?<=[{_CAPITAL}]{{2}})\.)\Z"
)
_CUT = re.compile(
    rf"\.\.+|[…{_SIGN}]|(?<=[0-9])[-+*^](?=[-0-9])|(?<={_LETTER}),(?={_LETTER})"
    rf"|(?:(?<={_SMALL})|(?<=[{_QUOTE}]))\.(?=[{_CAPITAL}{_QUOTE}])"
    rf"|(?:(?<={_LETTER})|(?<=[0-9]))(?:--|---|——|[-–—~:<>=/])(?={_LETTER})"
)


def tokens(title: str) -> list[str]:
    """The tokens of ``title``: words, numbers and punctuation, without white space."""
    result: list[str] = []
    for piece in title.split():
        result.extend(_short(piece) if len(piece) <= _SHORT else _tokens(piece))
    return result


@lru_cache(maxsize=16_384)
def _short(piece: str) -> list[str]:
    return _tokens(piece)


def _tokens(piece: str) -> list[str]:
    """The tokens of text without white space."""
    fixed, joined = _fixed_words()
    parts = _cut(piece, fixed)
    if len(parts) < 2:
        return parts
    # A fixed word may have been split; join the longest first, then the leftmost.
    candidates = [
        (start - end, start, end)
        for start in range(len(parts))
        for end in range(start + 1, min(start + _FIXED, len(parts)) + 1)
        if tuple(parts[start:end]) in joined
    ]
    whole: dict[int, tuple[int, tuple[str, ...]]] = {}
    taken: set[int] = set()
    for _, start, end in sorted(candidates):
        if start not in taken and end - 1 not in taken:
            whole[start] = end, joined[tuple(parts[start:end])]
        taken.update(range(start, end))
    result: list[str] = []
    at = 0
    while at < len(parts):
        at, words = whole.get(at, (at + 1, (parts[at],)))
        result.extend(words)
    return result


def _cut(piece: str, fixed: dict[str, tuple[str, ...]]) -> list[str]:
    """Splits punctuation off both ends, then splits the rest."""
    start, end = 0, len(piece)

    def is_fixed(a: int, b: int) -> bool:
        return b - a <= _FIXED and piece[a:b] in fixed

    before: list[str] = []
    after: list[str] = []
    while start < end and not is_fixed(start, end):
        prefix = _START.match(piece, start, end)
        head = prefix.end() if prefix else start
        if prefix and is_fixed(head, end):
            before.append(piece[start:head])
            start = head
            break
        tail = _tail(piece, head, end)
        if tail < end and is_fixed(start, tail):
            after.append(piece[tail:end])
            end = tail
            break
        if head == start and tail == end:
            break
        if prefix:
            before.append(piece[start:head])
        if tail < end:
            after.append(piece[tail:end])
        start, end = head, tail
    middle = piece[start:end]
    if middle in fixed:
        inside: Iterator[str] | tuple[str, ...] = fixed[middle]
    else:
        inside = (middle,) if not middle or _is_address(middle) else _inside(middle)
    return [*before, *filter(None, inside), *reversed(after)]


def _tail(piece: str, start: int, end: int) -> int:
    """Where the ending of ``piece[start:end]`` starts; ``end`` when it has none."""
    if piece.endswith("..", start, end):
        return start + len(piece[start:end].rstrip("."))
    window = max(start, end - _WINDOW)
    ending = _END.search(piece[window:end])
    return window + ending.start() if ending else end


def _inside(text: str) -> Iterator[str]:
    at = 0
    for separator in _CUT.finditer(text):
        if separator.start():  # at the start of a word it belongs to the word
            yield text[at : separator.start()]
            yield separator[0]
            at = separator.end()
    yield text[at:]


def _is_address(text: str) -> bool:
    """Whether ``text`` looks like a web or mail address, which is never split: shop.example/a-b."""
    scheme, slashes, rest = text.partition("://")
    if slashes and re.fullmatch(r"[\w+\-.]{2,}", scheme):
        text = rest
    text = text.rpartition("@")[2]
    host = re.split(r"[/?#]|:(?=[0-9]{2,5}(?:[/?#]|\Z))", text, maxsplit=1)[0]
    *labels, top = host.split(".")
    return (
        bool(labels)
        and re.fullmatch(rf"{_SMALL}{{2,63}}", top) is not None
        and all(re.fullmatch(r"[^\W_](?:[\w\-]{0,62}[^\W_])?", label) for label in labels)
    )


@dataclass(slots=True, frozen=True)
class _Contractions:
    """Each stem with each ending is a fixed word."""

    __pydantic_config__ = TABLE
    stems: tuple[str, ...]
    endings: tuple[str, ...]  # tokens separated by a space


@dataclass(slots=True, frozen=True)
class _FixedWords:
    """The whole file ``nouns.yaml``; each key is explained there."""

    __pydantic_config__ = TABLE
    contractions: tuple[_Contractions, ...]
    not_contractions: tuple[str, ...]
    two_tokens: tuple[str, ...]
    one_token: tuple[str, ...]


@lru_cache(maxsize=1)
def _fixed_words() -> tuple[dict[str, tuple[str, ...]], dict[tuple[str, ...], tuple[str, ...]]]:
    """(fixed word -> its tokens, result of the other rules for a fixed word -> its tokens)."""
    words = read_yaml(Path(__file__).with_suffix(".yaml"), _FixedWords)
    fixed: dict[str, tuple[str, ...]] = {}
    for group in words.contractions:
        stems = [word for stem in group.stems for word in (stem, stem.title())]
        for stem, ending, mark in product(stems, group.endings, ("'", "’", "")):
            pieces = (stem, *ending.replace("'", mark).split())
            fixed["".join(pieces)] = pieces
    for word in words.not_contractions:
        fixed.pop(word, None)
        fixed.pop(word.title(), None)
    for pair in words.two_tokens:
        for pieces in (tuple(pair.split()), tuple(pair.capitalize().split())):
            fixed["".join(pieces)] = pieces
    fixed.update((f"°{unit}.", ("°", unit, ".")) for unit in "CFKcfk")
    for hour, half in product(range(1, 13), ("am", "pm", "a.m.", "p.m.")):
        fixed[f"{hour}{half}"] = (str(hour), half)
    fixed.update((word, (word,)) for word in words.one_token)
    fixed.update((f"{letter}.", (f"{letter}.",)) for letter in "abcdefghijklmnopqrstuvwxyzäöü")
    joined = {tuple(_cut(word, {})): pieces for word, pieces in fixed.items()}
    joined = {parts: pieces for parts, pieces in joined.items() if len(parts) > 1 and parts != pieces}
    return fixed, joined
