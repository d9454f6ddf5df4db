"""The search index: ranking, ties, files."""

from __future__ import annotations

import gzip
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from repro_rl.envs.webshop.search import index as index_module
from repro_rl.envs.webshop.search.analyzer import analyze
from repro_rl.envs.webshop.search.index import MAX_QUERY, MAX_TERMS, SearchIndex, length_of
from repro_rl.envs.webshop.search.index_build import length_codes
from repro_rl.errors import DataError
from support.webshop_text import PIECES

# Scores worked by hand: 3 documents of 2, 4 and 2 terms, 8 / 3 on average.
TOY = ["red chair", "Red, red table lamp", "the blue sofa"]


def bm25(
    count: int, documents: int, freq: int, length: int, boost: int = 1, n: int = 3, mean: float = 8 / 3
) -> float:
    idf = math.log(1 + (n - documents + 0.5) / (documents + 0.5))
    assert count >= documents
    return boost * idf * freq / (freq + 0.9 * (0.6 + 0.4 * length / mean))


def test_scores_of_three_documents() -> None:
    toy = SearchIndex.build(TOY)
    # idf = ln 1.6 = 0.470004; length factors 0.9 (0.6 + 0.3) = 0.81 and 0.9 (0.6 + 0.6) = 1.08
    (first, high), (second, low) = toy.scores("reds")
    assert (first, second) == (1, 0)
    assert (high, low) == (pytest.approx(0.470004 * 2 / 3.08, 1e-5), pytest.approx(0.470004 / 1.81, 1e-5))
    # a repeated word counts twice; chair: ln(1 + 2.5 / 1.5) = 0.980829
    (first, high), (second, low) = toy.scores("the red chair, a RED one")
    assert (first, second) == (0, 1)
    assert high == pytest.approx((2 * 0.470004 + 0.980829) / 1.81, 1e-5)
    assert low == pytest.approx(2 * 0.470004 * 2 / 3.08, 1e-5)
    assert toy.search("sofa sofa") == [2]
    assert toy.search("table", k=0) == toy.search("zzz") == toy.search("the") == []


def test_documents_without_terms_do_not_count() -> None:
    """Lucene's number of documents and mean length are over documents that have the field's terms."""
    padded = SearchIndex.build(["", *TOY, "the of", "..."])
    assert padded.documents == 6
    assert padded.scores("red chair") == [(i + 1, s) for i, s in SearchIndex.build(TOY).scores("red chair")]


def test_lengths_keep_four_bits() -> None:
    """Lucene's SmallFloat: exact to 40, then the four leading bits of what is above 24."""
    assert [length_of(code) for code in (0, 23, 24, 39, 40, 41, 47, 48, 255)] == [
        *(0, 23, 24, 39, 40, 42, 54, 56, 2_013_265_944),
    ]
    decoded = np.array([length_of(code) for code in range(256)], dtype=np.int64)
    lengths = np.array([0, 40, 41, 42, 55, 56, 10_000])
    assert decoded[length_codes(lengths, decoded)].tolist() == [0, 40, 40, 42, 54, 56, 9_240]
    same = SearchIndex.build(["oak " + "pad " * 39, "oak " + "pad " * 40])  # 40 and 41 terms
    assert same.search("oak") == [0, 1]
    assert len({score for _, score in same.scores("oak")}) == 1


def test_ties_rank_by_position() -> None:
    texts = ["oak table", "pine shelf", "oak table", "oak", "oak table"] * 400
    many = SearchIndex.build(texts)
    assert many.search("oak", 1000)[:400] == list(range(3, 2000, 5))
    assert many.search("table", 7) == [0, 2, 4, 5, 7, 9, 10]


def test_many_repeats() -> None:
    """Counts above 255 are stored beside the bytes."""
    texts = [f"{'oak ' * count}{'elm ' * (400 - count)}" for count in (254, 255, 256, 257, 300, 399)]
    found = SearchIndex.build(texts)
    assert found.search("oak") == [5, 4, 3, 2, 1, 0]
    for position, score in found.scores("oak"):
        count = (254, 255, 256, 257, 300, 399)[position]
        length = length_of(
            int(length_codes(np.array([400]), np.array([length_of(c) for c in range(256)]))[0])
        )
        assert score == pytest.approx(bm25(6, 6, count, length, n=6, mean=400), 1e-5)


WORDS = ("oak", "elm", "red", "blue", "tables", "size", "7.5", "the", "women's", "★", "漢字", "x_1")


TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join), max_size=30)


QUERY = st.one_of(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), PIECES)


def plain_search(texts: list[str], query: str) -> list[tuple[int, float]]:
    """The formula in plain Python floats, document by document (lengths below 40 are exact)."""
    split = [analyze(text) for text in texts]
    filled = [terms for terms in split if terms]
    scores = []
    for position, terms in enumerate(split):
        score = 0.0
        for term in analyze(query):
            if term in terms:
                documents = sum(term in other for other in filled)
                mean = sum(map(len, filled)) / len(filled)
                score += bm25(documents, documents, terms.count(term), len(terms), 1, len(filled), mean)
        if score:
            scores.append((position, score))
    return scores


@settings(max_examples=60, deadline=None)
@given(TEXTS, QUERY, st.integers(-2, 40))
def test_search_is_the_formula(texts: list[str], query: str, k: int) -> None:
    built = SearchIndex.build(texts)
    found = built.scores(query, k)
    assert [position for position, _ in found] == built.search(query, k)
    assert found == built.scores(query, k)
    expected = dict(plain_search(texts, query))
    assert len(found) == max(0, min(k, len(expected)))
    for position, score in found:
        assert score == pytest.approx(expected[position], rel=1e-5)
    assert found == sorted(found, key=lambda pair: (-pair[1], pair[0]))
    if found:
        left = [expected[position] for position in expected.keys() - {position for position, _ in found}]
        assert max(left, default=0) <= found[-1][1] * (1 + 1e-5)


@pytest.fixture(scope="module")
def random_texts() -> list[str]:
    rng = np.random.default_rng(0)
    vocabulary = np.array([f"w{i}" for i in range(300)] + ["oak", "women's", "★", "café"])
    picks = (
        vocabulary[(len(vocabulary) * rng.random(rng.integers(0, 60)) ** 2).astype(int)] for _ in range(700)
    )
    return [" ".join(pick) for pick in picks]


@pytest.fixture(scope="module")
def saved(random_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search") / "index"
    SearchIndex.build(random_texts).save(folder)
    return folder


def queries() -> Iterator[str]:
    for i in range(40):
        yield f"w{i} w{i} w{3 * i} oak cafés w{i + 200} WOMEN’S ★ w1"


def test_large_and_small_collections_agree(
    random_texts: list[str], saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cached scores or computed ones, selection at once or by blocks: the same bits."""
    expected = [SearchIndex.load(saved).scores(query, 20) for query in queries()]
    for small, block, piece in ((0, 512, 1 << 15), (0, 7, 5), (1 << 20, 7, 5)):
        monkeypatch.setattr(index_module, "_SMALL", small)
        monkeypatch.setattr(index_module, "_BLOCK", block)
        monkeypatch.setattr(index_module, "_PIECE", piece)
        assert [SearchIndex.load(saved).scores(query, 20) for query in queries()] == expected


def test_the_chunk_size_changes_nothing(
    random_texts: list[str], saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repro_rl.envs.webshop.search.index_build.CHUNK", 500)
    monkeypatch.setattr("repro_rl.envs.webshop.search.index_build._WORDS", 50)
    seen: list[int] = []
    built = SearchIndex.build(iter(random_texts), seen.append)
    assert seen == list(range(1, len(random_texts) + 1))
    built.save(saved.parent / "chunked")
    for file in saved.iterdir():
        assert file.read_bytes() == (saved.parent / "chunked" / file.name).read_bytes(), file.name


def test_saved_and_loaded(random_texts: list[str], saved: Path) -> None:
    built, loaded = SearchIndex.build(random_texts), SearchIndex.load(saved)
    assert loaded.documents == built.documents == 700
    assert loaded.nbytes == built.nbytes
    for query in queries():
        assert loaded.scores(query, 700) == built.scores(query, 700)
    built.save(saved.parent / "again")
    built.save(saved.parent / "again")  # over an older one
    assert SearchIndex.load(saved.parent / "again").search("oak") == loaded.search("oak")
    assert not list((saved.parent / "again").glob(".*"))


@pytest.mark.parametrize("texts", [[], [""], ["the"], ["", "oak", ""]])
def test_nearly_empty(texts: list[str], tmp_path: Path) -> None:
    SearchIndex.build(texts).save(tmp_path)
    for found in (SearchIndex.build(texts), SearchIndex.load(tmp_path)):
        assert found.documents == len(texts)
        assert found.search("oak") == ([1] if "oak" in texts else [])
        assert found.search("") == []


def test_hostile_queries(random_texts: list[str]) -> None:
    built = SearchIndex.build(random_texts)
    for query in ("", "\x00", "\ud800\udfff", "the", "'" * 999, "w1 " * 5000, "x" * 100_000, "_" * 50_000):
        assert len(built.search(query)) <= 50
    assert built.search("\ud800w1\udfff") == built.search("w1")
    many = [f"n{i}" for i in range(MAX_TERMS)]
    assert built.search(" ".join(many[1:]) + " w5") == built.search("w5")
    assert built.search(" ".join(many) + " w5") == []  # the 1,025th different term; Lucene refuses the query
    long_query = "w1 " * 200_000
    assert len(long_query) > MAX_QUERY
    assert built.scores(long_query) == built.scores(long_query[:MAX_QUERY]), "the rest is not read"


def spoil_head(folder: Path, **changes: Any) -> None:
    head = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(head | changes))


@pytest.mark.parametrize(
    "name",
    [
        "index.json",
        "docs.npy",
        "freqs.npy",
        "starts.npy",
        "lengths.npy",
        "terms.bin",
        "term_starts.npy",
        "large.npy",
    ],
)
def test_broken_files_are_named(saved: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(saved, tmp_path / "index")
    file = tmp_path / "index" / name
    whole = file.read_bytes()
    for broken in (
        whole[:-3],
        whole[: len(whole) // 2],
        whole[:20],
        b"",
        b"PK\x03\x04junk",
        b"\xff" * len(whole),
    ):
        if name == "terms.bin" and len(broken) == len(whole):
            continue  # the terms have no form of their own
        file.write_bytes(broken)
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            SearchIndex.load(tmp_path / "index")
    file.unlink()
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        SearchIndex.load(tmp_path / "index")


def test_other_versions_are_refused(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "index")
    spoil_head(tmp_path / "index", version=999)
    with pytest.raises(DataError, match=r"index\.json.*version 999"):
        SearchIndex.load(tmp_path / "index")
    for changes in ({"arrays": 3}, {"arrays": {}}, {"terms": "x"}, {"terms": None}):
        spoil_head(tmp_path / "index", version=index_module.VERSION, **changes)
        with pytest.raises(DataError, match=r"index\.json"):
            SearchIndex.load(tmp_path / "index")
    with pytest.raises(DataError, match=r"index\.json"):
        SearchIndex.load(tmp_path / "nowhere")


@pytest.mark.parametrize("number", [700, 1 << 31, (1 << 32) - 1])
def test_a_posting_of_a_document_that_is_not_there_is_refused(
    saved: Path, tmp_path: Path, number: int
) -> None:
    """Its scores would take up to 32 GB."""
    shutil.copytree(saved, tmp_path / "index")
    docs = np.load(tmp_path / "index" / "docs.npy")
    docs[5] = number
    np.save(tmp_path / "index" / "docs.npy", docs)
    with pytest.raises(DataError, match=rf"docs\.npy.*names document {number} of 700"):
        SearchIndex.load(tmp_path / "index")


def test_the_originals_results(shared_webshop: Path) -> None:
    """210 queries on the real 1,000 products: order exactly, scores to 1e-3 (the original rounds them)."""
    with gzip.open(shared_webshop / "items_shuffle_1000.json.gz") as handle:
        products = sorted(json.load(handle), key=lambda product: product["asin"])
    built = SearchIndex.build(map(indexed_text, products))
    with gzip.open(shared_webshop / "search.jsonl.gz", "rt") as lines:
        for case in map(json.loads, lines):
            results = built.scores(case["query"])
            assert [products[position]["asin"] for position, _ in results] == case["asins"], case["query"]
            np.testing.assert_allclose([score for _, score in results], case["scores"], atol=1e-3)


def indexed_text(product: dict[str, Any]) -> str:
    """What the original indexes of a product of its own files."""
    options = {
        name: [value["value"].strip().replace("/", " | ") for value in values]
        for name, values in (product["customization_options"] or {}).items()
        if values
    }
    listed = ", and ".join(f"{name}: {', '.join(values)}" for name, values in options.items())
    bullets = product["small_description"]
    first = bullets if isinstance(bullets, str) else next(iter(bullets or [""]))
    return " ".join([product["name"], product["full_description"] or "", first, listed]).lower()
