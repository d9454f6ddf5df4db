"""The nouns of product titles: which tokens, which tagger, and the original's rewards with them."""

from __future__ import annotations

import gzip
import importlib
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from repro_rl.envs.webshop.data import nouns as module
from repro_rl.envs.webshop.data.nouns import LONGEST, nouns, tagger_name, tokens
from repro_rl.errors import MissingDependencyError

FAKE_MODEL = """
from types import SimpleNamespace as Token

class Model:
    meta = {{"version": "9.8.7"}}
    def __call__(self, text):
        kinds = ["NOUN", "PROPN", "ADJ"]
        return [Token(text=w, pos_=kinds[i % 3]) for i, w in enumerate(text.split())]

def load(exclude=()):
    {load}
    return Model()
"""


def forget() -> None:
    module._loaded.clear()
    module._nouns.cache_clear()


@pytest.fixture
def fresh() -> Iterator[None]:
    """The tagger is chosen anew, now and after the test."""
    forget()
    yield
    forget()


@pytest.fixture
def bundled(monkeypatch: pytest.MonkeyPatch, fresh: None) -> None:
    """The bundled tagger, even where a spaCy model is installed."""
    monkeypatch.setattr(module, "SPACY_MODELS", ())


def fake_model(folder: Path, name: str, load: str = "") -> None:
    (folder / f"{name}.py").write_text(FAKE_MODEL.format(load=load or "pass"), encoding="utf-8")
    importlib.invalidate_caches()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: None) -> Iterator[Path]:
    """A folder that is searched for models before all others."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in module.SPACY_MODELS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield tmp_path
    for name in module.SPACY_MODELS:
        sys.modules.pop(name, None)  # else every later test would find the fake


# --- tokens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        (" \t\n ", ""),
        ("Men's Slim-Fit Jeans, 2-Pack (Black/Grey)", "Men 's Slim - Fit Jeans , 2 - Pack ( Black / Grey )"),
        ("Women’s T-Shirt", "Women ’s T - Shirt"),
        ("16.9oz Bottle 12.5in 3.5'' 40%", "16.9 oz Bottle 12.5 in 3.5 '' 40 %"),
        ("2-4 x 6x8 1/2 3x", "2 - 4 x 6x8 1/2 3x"),
        ("Wi-Fi 6/6E; USB-C & HDMI", "Wi - Fi 6/6E ; USB - C & HDMI"),
        ("$19.99 US$5 5$ +10 +x 10+", "$ 19.99 US$ 5 5 $ +10 + x 10 +"),
        ("Brand™ Gel® 20°C ★Gift★", "Brand ™ Gel ® 20 ° C ★ Gift ★"),
        ("Dr. Smith Co., Ltd. oz. U.S.", "Dr. Smith Co. , Ltd. oz . U.S."),
        ("Wait...what…ever ...", "Wait ... what … ever ..."),
        ("red,blue small.Large 1,000", "red , blue small . Large 1,000"),
        ("[NEW] 【Soft】 \"Best\" 'x'", "[ NEW ] 【 Soft 】 \" Best \" ' x '"),
        ("(Pack of 8) (2-8)", "( Pack of 8) ( 2 - 8)"),  # 8) is a face to spaCy
        ("don't cannot I'm well 9pm w/o", "do n't can not I 'm well 9 pm w/o"),
        ("www.my-shop.com/a-b my-shop", "www.my-shop.com/a-b my - shop"),
        ("4–6 A—B a--b -x x-", "4–6 A — B a -- b -x x-"),
        ("full\u00a0size", "full size"),
    ],
)
def test_tokens(text: str, expected: str) -> None:
    assert tokens(text) == expected.split()


@given(st.text())
def test_tokens_keep_every_character(text: str) -> None:
    assert "".join(tokens(text)) == "".join(text.split())
    assert all(tokens(text))


@given(st.text(alphabet="aB1c9 .,-/'’\"()[]:;+*&%$°™é_@!?x8oz—Ill'sn't", max_size=30))
def test_tokens_keep_every_character_of_titles(text: str) -> None:
    assert "".join(tokens(text)) == "".join(text.split())


def test_no_fixed_word_is_longer_than_the_limit() -> None:
    fixed, joined = module._fixed_words()
    assert max(map(len, fixed)) <= module._FIXED
    assert all("".join(words) == word for word, words in fixed.items())
    assert all("".join(words) == "".join(parts) for parts, words in joined.items())


def test_the_tokens_of_spacy(shared_webshop: Path) -> None:
    """spaCy's own English rules, where the library is installed (it needs no model for this)."""
    english = pytest.importorskip("spacy").blank("en")
    for title in titles(shared_webshop).values():
        assert tokens(title) == [token.text for token in english(title) if not token.is_space]


# --- the bundled tagger -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("", ""),
        ("the and of", ""),
        ("Wooden Table for the Kitchen", "table kitchen"),
        ("women's running shoes", "women shoes"),
        ("a red coffee table and two chairs", "coffee table chairs"),
        ("Table Lamp, Desk Lamp", "table lamp desk lamp"),
    ],
)
def test_nouns(bundled: None, title: str, expected: str) -> None:
    assert nouns(title) == tuple(expected.split())


def test_duplicates_are_kept(bundled: None) -> None:
    assert nouns("lamp lamp LAMP").count("lamp") == 3


def test_the_bundled_tagger_has_a_name(bundled: None) -> None:
    name = tagger_name()
    assert name.startswith("textblob ")
    assert name.endswith(f"token rules {module.RULES}")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=st.characters(codec=None, exclude_categories=())))
def test_no_text_raises(bundled: None, title: str) -> None:
    found = nouns(title)
    assert all(word and word == word.lower() for word in found)
    assert nouns(title) == found


@pytest.mark.parametrize(
    "title",
    [
        "a" * 10_000_000,
        " " * 10_000_000,
        "(" * 1_000_000,
        "'s" * 99_999,
        "8)" * 99_999,
        "a-" * 99_999,
        "." * 99_999,
        "\ud800" * 99_999,
        "\x00" * 99_999,
        "\U0001f600" * 99_999,
        "a@b." * 99_999,
        "::" * 99_999,
        "''" * 99_999,
    ],
    ids=lambda title: ascii(title[:4]),
)
def test_long_titles_take_linear_time(bundled: None, title: str) -> None:
    """Any pattern that backtracks would hang here."""
    assert all(word == word.lower() for word in nouns(title))


def test_only_the_beginning_of_a_long_title_is_read(bundled: None) -> None:
    padding = " " * (LONGEST - 4)
    assert nouns(f"lamp{padding}table") == ("lamp",)


def test_threads_see_the_whole_word_list(tmp_path: Path) -> None:
    # In a process of its own, because here the list is already read.
    code = (
        "from concurrent.futures import ThreadPoolExecutor as Pool\n"
        "from repro_rl.envs.webshop.data import nouns as module\n"
        "module.SPACY_MODELS = ()\n"
        "texts = [f'{i} a quickly running yellow zebra' for i in range(8)]\n"
        "with Pool(8) as pool: print(set(pool.map(module.nouns, texts)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "{('zebra',)}"


def test_importing_the_module_loads_no_tagger() -> None:
    code = (
        "import sys, repro_rl.envs.webshop.data.nouns\n"
        "print([name for name in ('textblob', 'spacy') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_without_textblob_the_error_says_what_to_install(
    fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPACY_MODELS", ())
    monkeypatch.setitem(sys.modules, "textblob.en", None)
    with pytest.raises(MissingDependencyError, match="pip install textblob"):
        nouns("table")
    with pytest.raises(MissingDependencyError, match="pip install textblob"):
        tagger_name()
    monkeypatch.undo()
    assert tagger_name()  # a failure is not remembered


# --- spaCy's model ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("installed", "used"),
    [
        (["sm"], "sm"),
        (["sm", "md"], "md"),
        (["sm", "lg"], "lg"),
        (["lg", "md", "sm"], "lg"),
    ],
)
def test_an_installed_model_is_preferred(
    folder: Path, monkeypatch: pytest.MonkeyPatch, installed: list[str], used: str
) -> None:
    # Only the fakes count, should real models be installed as well.
    names = tuple(name for name in module.SPACY_MODELS if name[-2:] in installed)
    monkeypatch.setattr(module, "SPACY_MODELS", names)
    for size in installed:
        fake_model(folder, f"en_core_web_{size}")
    assert tagger_name() == f"spacy en_core_web_{used} 9.8.7"
    assert nouns("Red Table wide Table") == ("red", "table", "table")
    assert nouns("\ud800") == ("?",)


def test_the_order_of_the_models() -> None:
    assert module.SPACY_MODELS == ("en_core_web_lg", "en_core_web_md", "en_core_web_sm")


def test_a_model_that_does_not_load_is_skipped_with_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPACY_MODELS", ("en_core_web_lg", "en_core_web_sm"))
    fake_model(folder, "en_core_web_lg", load="raise OSError('made for another version')")
    fake_model(folder, "en_core_web_sm")
    with pytest.warns(UserWarning, match="en_core_web_lg is installed but does not load: made for another"):
        assert tagger_name() == "spacy en_core_web_sm 9.8.7"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nouns("it warns once")


# --- the original's rewards ---------------------------------------------------------------------------------


def lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as handle:
        return [json.loads(line) for line in handle]


def raw_products(shared: Path) -> dict[str, dict[str, Any]]:
    packed = (shared / "items_shuffle_1000.json.gz").read_bytes()
    return {item["asin"]: item for item in json.loads(gzip.decompress(packed))}


def titles(shared: Path) -> dict[str, str]:
    return {asin: item["name"] for asin, item in raw_products(shared).items()}


def title_score(bought: str, target: str) -> float:
    goal = nouns(target)
    return len(set(nouns(bought)) & set(goal)) / len(goal) if goal else 0.2


def type_of(bought: dict[str, Any], goal: dict[str, Any], score: float) -> float:
    """The type factor, written down a second time."""
    if score < 0.1:
        return 0.0 if score == 0 else 0.1
    shared = {part.strip() for part in bought["product_category"].split("›")} & {
        part.strip() for part in goal["product_category"].split("›")
    }
    same_query = bought["query"].lower().strip() == goal["query"].lower().strip()
    return 1.0 if same_query or len(shared) >= 2 or score > 0.2 else 0.5


def purchases(shared: Path) -> list[dict[str, Any]]:
    """All purchases of the transcripts: goal, asin, type factor, and what each tagger makes of them."""
    found = [{**case, "type": case["info"]["r_type"]} for case in lines(shared / "reward_cases.jsonl.gz")]
    found += [
        {**episode, "asin": episode["purchased"]["asin"], "type": episode["verbose_info"]["r_type"]}
        for episode in lines(shared / "episodes.jsonl.gz")
        if episode["purchased"]
    ]
    return found


def test_the_type_factors_of_the_original(bundled: None, shared_webshop: Path) -> None:
    products = raw_products(shared_webshop)
    cases = purchases(shared_webshop)
    robust = 0
    for case in cases:
        bought, goal = products[case["asin"]], case["goal"]
        score = title_score(bought["name"], goal["name"])
        pattern_score, pattern_type = case["r_type_by_tagger"]["pattern"]
        where = f"{case['asin']} for {goal['asin']}"
        assert score == pytest.approx(pattern_score, abs=1e-6), where
        got = type_of(bought, goal, score)
        assert got == pattern_type, where
        if case["tagger_robust"]:
            robust += 1
            assert got == case["type"], where
            if "base" in case:
                assert case["base"] * got == pytest.approx(case["reward"], abs=1e-9), where
    assert len(cases) > 400
    assert robust > 350
