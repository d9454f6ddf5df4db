"""The catalogue on disk: look-ups, writing, damaged files."""

from __future__ import annotations

import json
import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from repro_rl.envs.webshop.data import catalogue as catalogue_module
from repro_rl.envs.webshop.data.catalogue import (
    Catalogue,
    open_catalogue,
    write_catalogue,
)
from repro_rl.envs.webshop.data.nouns import nouns, tagger_name
from repro_rl.envs.webshop.data.products import HumanInstruction, Product
from repro_rl.errors import DataError
from support.webshop_data import cut, flip, product, write

texts = st.text(st.characters(), max_size=12)


tuples = st.lists(texts, max_size=3).map(tuple)


products = st.builds(
    Product,
    asin=st.text(st.characters(), min_size=1, max_size=10),
    title=texts,
    description=texts,
    bullets=tuples,
    category=texts,
    query=texts,
    product_category=texts,
    price_tag=texts,
    prices=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=2).map(tuple),
    options=st.dictionaries(texts, tuples, max_size=3),
    attributes=tuples,
    instruction=st.none() | texts,
    instruction_attributes=tuples,
    human=st.lists(st.builds(HumanInstruction, texts, tuples, tuples), max_size=2).map(tuple),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(expected=st.lists(products, min_size=1, max_size=5, unique_by=lambda item: item.asin))
def test_products_survive_a_round_trip(tmp_path: Path, expected: list[Product]) -> None:
    catalogue = write_catalogue(expected, tmp_path / "c", source={})
    assert [catalogue.product(i) for i in range(len(catalogue))] == expected
    for i, item in enumerate(expected):
        assert list(catalogue.product(i).options) == list(item.options)  # their order shows on the pages
        assert (catalogue.asin(i), catalogue.number(item.asin)) == (item.asin, i)
        assert catalogue.nouns(i) == nouns(item.title)
        for value, numbers in (
            (item.query, catalogue.by_query(item.query)),
            (item.category, catalogue.by_category(item.category)),
        ):
            assert i in numbers, value
        for attribute in item.attributes:
            assert list(catalogue.by_attribute(attribute)) == [
                j for j, other in enumerate(expected) if attribute in other.attributes
            ]


def test_lookups(tmp_path: Path) -> None:
    expected = [
        product("B2", query="chairs", attributes=("soft", "soft", "red")),
        product("b1", category="beauty"),
        product("B1", attributes=()),
        product("A\x00"),
        product("A"),
    ]
    catalogue = write_catalogue(expected, tmp_path / "c", source={})
    assert [catalogue.number(asin) for asin in ("B2", "b1", "B1", "A", "A\x00", "a", "", "B3")] == [
        0, 1, 2, 4, 3, None, None, None,
    ]  # fmt: skip
    assert list(catalogue.by_query("tables")) == [1, 2, 3, 4]
    assert list(catalogue.by_category("beauty")) == [1]
    assert list(catalogue.by_attribute("soft")) == [0]
    assert (
        len(catalogue.by_query("x"))
        == len(catalogue.by_category(""))
        == len(catalogue.by_attribute("SOFT"))
        == 0
    )
    numbers = catalogue.by_attribute("a")
    assert (numbers[0], type(numbers[0]), len(numbers)) == (1, int, 3)
    for number in (-1, 5):
        for method in (catalogue.product, catalogue.nouns, catalogue.asin):
            with pytest.raises(IndexError):
                method(number)


def test_ties_of_a_search_rank_by_ascending_asin(tmp_path: Path) -> None:
    asins = ["b", "C", "A", "é", "B", "a", "0", "😀", "\uffff"]
    catalogue = write_catalogue([product(asin) for asin in asins], tmp_path / "c", source={})
    results = catalogue.search("oak table")
    assert [catalogue.asin(number) for number in results] == sorted(asins)
    assert all(type(number) is int for number in results)
    assert catalogue.search("oak table") is results
    assert catalogue.search("") == catalogue.search("zzz \x00 unknown") == ()


def test_a_search_gives_fifty(tmp_path: Path) -> None:
    catalogue = write_catalogue([product(f"B{i:03}") for i in range(80)], tmp_path / "c", source={})
    assert catalogue.search("oak") == tuple(range(50))


def test_the_manifest_and_the_digest(tmp_path: Path) -> None:
    two = [product("B1"), product("B2")]
    calls: list[tuple[str, int]] = []
    first = write_catalogue(
        two, tmp_path / "a", source={"kind": "x"}, on_done=lambda *done: calls.append(done)
    )
    again = write_catalogue(iter(two), tmp_path / "b", source={})
    assert first.digest == again.digest
    assert len(first.digest) == 64
    assert write_catalogue(two[::-1], tmp_path / "b", source={}).digest != first.digest
    assert (
        write_catalogue([two[0], product("B2", title="x")], tmp_path / "b", source={}).digest != first.digest
    )
    assert first.manifest["tagger"] == tagger_name()
    assert first.manifest["source"] == {"kind": "x"}
    assert first.manifest["products"] == 2
    assert ("products", 2) in calls
    assert calls[-1] == ("index", 2)
    # worked out once, so that no machine and no version changes it silently
    assert first.digest == "6e3fd18201e862a03ab759a2d2bf8a3bffbd215d8837478c862a270473370c0f"


def test_invalid_catalogues_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no product"):
        write_catalogue([], tmp_path / "c", source={})
    with pytest.raises(DataError, match="record B1, field asin: two products"):
        write_catalogue([product("B1"), product("B0"), product("B1")], tmp_path / "c", source={})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(DataError, match="something else than a catalogue"):
        write_catalogue([product()], tmp_path / "mine", source={})
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def test_writing_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    def broken() -> Any:
        yield product("B2")
        raise RuntimeError("disk on fire")

    write_catalogue([product("B1")], tmp_path / "c", source={})
    with pytest.raises(RuntimeError):
        write_catalogue(broken(), tmp_path / "c", source={})
    assert Catalogue.open(tmp_path / "c").asin(0) == "B1"
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_process_opens_a_catalogue_once(tmp_path: Path) -> None:
    write_catalogue([product("B1")], tmp_path / "c", source={})
    first = open_catalogue(tmp_path / "c")
    assert open_catalogue(tmp_path / "." / "c") is first
    assert pickle.loads(pickle.dumps(first)) is first
    write_catalogue([product("B2")], tmp_path / "c", source={})
    assert open_catalogue(tmp_path / "c").asin(0) == "B2"
    assert first.product(0).asin == "B1"  # an open catalogue keeps its old content


def files_of_a_catalogue() -> list[str]:
    return [
        f"{name}.{end}"
        for name in ("products", "nouns", "asins", "query.keys", "query.numbers", "attribute.keys")
        for end in ("bin", "ends.u8")
    ] + ["order.u4", "asin.hash.u8", "asin.row.u4", "category.hash.u8", "manifest.json", "index/*"]


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("name", files_of_a_catalogue())
def test_the_error_names_the_damaged_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    small: bool,
    damage: Callable[[Path], None],
) -> None:
    folder = tmp_path / "c"
    write_catalogue([product(f"B{i}", description="long " * 50) for i in range(30)], folder, source={})
    if not small:
        monkeypatch.setattr(
            catalogue_module, "CHECKED", 0
        )  # as for a large catalogue: contents are not read at opening
    path = sorted(folder.glob(name))[0]
    damage(path)
    with pytest.raises(
        DataError, match=r"import it again|there is no WebShop catalogue|something else"
    ) as caught:
        Catalogue.open(folder).verify()
    assert path.name in str(caught.value) or name in ("manifest.json", "index/*")


def test_a_damaged_row_of_a_large_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "c"
    write_catalogue(
        [product(f"B{i}", description=os.urandom(200).hex()) for i in range(3)], folder, source={}
    )
    monkeypatch.setattr(catalogue_module, "CHECKED", 0)
    flip(folder / "products.bin")
    catalogue = Catalogue.open(folder)
    assert catalogue.product(0).asin == "B0"
    with pytest.raises(DataError, match=r"products\.bin, record 1: .* import it again"):
        catalogue.product(1)


def test_other_versions_and_other_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no WebShop catalogue here; make one with"):
        open_catalogue(tmp_path / "nowhere")
    folder = tmp_path / "c"
    write_catalogue([product()], folder, source={})
    manifest = json.loads((folder / "manifest.json").read_text())
    write(folder / "manifest.json", {**manifest, "version": 0})
    with pytest.raises(DataError, match="catalogue format 0, this package reads 1: import it again"):
        Catalogue.open(folder)
    write(folder / "manifest.json", {"format": "a run"})
    with pytest.raises(DataError, match="something else"):
        Catalogue.open(folder)
    for content in ("", "[]", "{}", "null", '{"format": "repro-rl webshop catalogue", "version": 1}'):
        (folder / "manifest.json").write_text(content)
        with pytest.raises(DataError, match="import it again"):
            Catalogue.open(folder)


def test_files_that_do_not_belong_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "c"
    write_catalogue([product("B1"), product("B2")], folder, source={})
    monkeypatch.setattr(catalogue_module, "check_files", lambda *arguments, **named: None)
    for name, data, message in (
        ("order.u4", bytes(7), "no whole numbers"),
        ("order.u4", bytes(12), "for 2 products"),
        ("asin.row.u4", b"", "do not belong together"),
        ("products.ends.u8", bytes(16), "do not belong together"),
        ("query.keys.ends.u8", b"", "do not belong together"),
    ):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(data)
        with pytest.raises(DataError, match=f"{message}.*import it again"):
            Catalogue.open(folder)
        (folder / name).write_bytes(whole)
    assert len(Catalogue.open(folder)) == 2


def test_the_products_are_compressed(tmp_path: Path) -> None:
    catalogue = write_catalogue([product(description="word " * 10_000)], tmp_path / "c", source={})
    assert (catalogue.folder / "products.bin").stat().st_size < 1000
    assert zlib.decompress((catalogue.folder / "products.bin").read_bytes()).startswith(b'{"asin":"B1"')
