"""WebShop's data: the original's cleaning rule by rule, hostile files, and the catalogue on disk."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import pickle
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from repro_rl.cli.data import data_app
from repro_rl.envs.webshop.data import catalogue as store
from repro_rl.envs.webshop.data import jsonstream
from repro_rl.envs.webshop.data.catalogue import (
    Catalogue,
    cache_root,
    find_files,
    locate,
    open_catalogue,
    write_catalogue,
)
from repro_rl.envs.webshop.data.generate import generate_catalogue
from repro_rl.envs.webshop.data.nouns import nouns, tagger_name
from repro_rl.envs.webshop.data.products import HumanInstruction, Product
from repro_rl.envs.webshop.data.reader import new_report, products_from_raw, read_products
from repro_rl.envs.webshop.data.tables import Names, save_hashes
from repro_rl.errors import DataError


def record(asin: str = "B000000001", **fields: Any) -> dict[str, Any]:
    return {
        "asin": asin,
        "name": "Oak Side Table",
        "full_description": "A table.",
        "small_description": ["solid oak", "easy to clean"],
        "pricing": "$19.99",
        "category": "garden",
        "query": " Side Tables ",
        "product_category": "Home › Furniture › Tables",
        "customization_options": "",
        **fields,
    }


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def read(tmp_path: Path, *records: Any, **options: Any) -> list[Product]:
    """What the reader makes of these records; attributes and human entries by keyword."""
    files = {
        name: write(tmp_path / f"{name}.json", options.pop(name)) if name in options else None
        for name in ("attributes", "human")
    }
    return list(read_products(write(tmp_path / "p.json", list(records)), **files, **options))


def one(tmp_path: Path, **fields: Any) -> Product:
    return read(tmp_path, record(**fields))[0]


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests write hundreds of catalogues; waiting for the disk would be most of their time."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REPRO_RL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "webshop"


@pytest.fixture(scope="session")
def shared() -> Path:
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("REPRO_RL_SHARED_DATA") or beside) / "webshop"
    if not folder.is_dir():
        pytest.skip(f"no shared data in {folder}; set REPRO_RL_SHARED_DATA")
    return folder


# The original's cleaning


def test_a_plain_record(tmp_path: Path) -> None:
    assert one(tmp_path) == Product(
        asin="B000000001",
        title="Oak Side Table",
        description="A table.",
        bullets=("solid oak", "easy to clean"),
        category="garden",
        query="side tables",
        product_category="Home › Furniture › Tables",
        price_tag="$19.99",
        prices=(19.99,),
        options={},
        attributes=("DUMMY_ATTR",),
    )


@pytest.mark.parametrize(
    ("pricing", "tag", "prices"),
    [
        (None, "$100.0", ()),
        ("", "$100.0", ()),
        ("$9", "$9.0", (9.0,)),
        ("$1,234.50", "$1234.5", (1234.5,)),
        ("$9.99 - $11.99", "$9.99 to $11.99", (9.99, 11.99)),
        ("$3$2$1", "$3.0 to $2.0", (3.0, 2.0)),
        ("from 5 to $ 7 each", "$7.0", (7.0,)),
        ("$.5", "$0.5", (0.5,)),
        ("$100000000000000000000", "$1e+20", (1e20,)),
    ],
)
def test_prices(tmp_path: Path, pricing: str | None, tag: str, prices: tuple[float, ...]) -> None:
    product = one(tmp_path, pricing=pricing)
    assert (product.price_tag, product.prices) == (tag, prices)


def test_a_missing_price_is_unknown(tmp_path: Path) -> None:
    without = record()
    del without["pricing"]
    assert read(tmp_path, without)[0].prices == ()


@pytest.mark.parametrize("pricing", ["$abc", "19.99", "$", "$1.2.3", "$5 $", "$" + "9" * 400, 19.99, ["$1"]])
def test_prices_nobody_can_read(tmp_path: Path, pricing: Any) -> None:
    with pytest.raises(DataError, match=r"record 1 \(ASIN 'B000000001'\), field pricing"):
        one(tmp_path, pricing=pricing)


def test_options(tmp_path: Path) -> None:
    groups = {
        "Color": [{"value": " Red/Blue ", "image": None}, {"value": "GREEN"}],
        "Gone": None,
        "Empty": [],
        "COLOR": [{"value": "Black"}],
        "Size": [{"value": "4'8\" [XL]"}, {"value": ""}],
    }
    assert one(tmp_path, customization_options=groups).options == {
        "color": ("black",),
        "empty": (),
        "size": ("4'8\" [xl]", ""),
    }
    kept = one(tmp_path, customization_options={"A": [{"value": " Red/Blue "}]})
    assert kept.options == {"a": ("red | blue",)}
    for nothing in ("", None, {}, [], 0, False):
        assert one(tmp_path, customization_options=nothing).options == {}


def test_bullets(tmp_path: Path) -> None:
    assert one(tmp_path, small_description="just one").bullets == ("just one",)
    assert one(tmp_path, small_description="").bullets == ("",)
    assert one(tmp_path, small_description=[]).bullets == ()


def test_which_records_count(tmp_path: Path) -> None:
    records = [
        record("nan"),
        record("B0000000011", name=None),  # too long: never looked at
        record("B1", name="first"),
        record("B1", name=7),  # repeated: never looked at
        record("b1"),
        record("B2"),
    ]
    report = new_report()
    found = read(tmp_path, *records, report=report)
    assert [(product.asin, product.title) for product in found][:2] == [
        ("B1", "first"),
        ("b1", "Oak Side Table"),
    ]
    assert (report["records"], report["products"]) == (6, 3)
    assert (report["without_asin"], report["repeated"], report["bad"]) == (2, 1, 0)
    assert [product.asin for product in read(tmp_path, *records, limit=3)] == ["B1"]
    assert len(read(tmp_path, *records, limit=60)) == 3
    with pytest.raises(DataError, match="at least 1"):
        read(tmp_path, *records, limit=0)


def test_attributes(tmp_path: Path) -> None:
    attributes = {
        "A": {
            "attributes": ["solid wood", "easy clean"],
            "instruction": "Find it.",
            "instruction_attributes": ["x"],
        },
        "B": {"attributes": []},
        "C": {"instruction": None, "instruction_attributes": None},
        "other": "never looked at",
    }
    report = new_report()
    a, b, c, d = read(tmp_path, *map(record, "ABCD"), attributes=attributes, report=report)
    assert (a.attributes, a.instruction, a.instruction_attributes) == (
        ("solid wood", "easy clean"),
        "Find it.",
        ("x",),
    )
    assert (b.attributes, b.instruction, b.instruction_attributes) == ((), None, ())
    assert c.attributes == d.attributes == ("DUMMY_ATTR",)
    assert (c.instruction, c.instruction_attributes) == (None, ())
    assert report["with_attributes"] == 3


def test_human_instructions(tmp_path: Path) -> None:
    entry = {"instruction": "a red one.", "instruction_attributes": ["soft"], "instruction_options": ["red"]}
    empty = {"instruction_attributes": [], "instruction": None}
    a, b = read(tmp_path, record("A"), record("B"), human={"A": [entry, empty], "Z": 3})
    assert a.human == (HumanInstruction("a red one.", ("soft",), ("red",)), HumanInstruction("", (), ()))
    assert b.human == ()


@pytest.mark.parametrize("name", ["p.json", "p.json.gz", "p"])
@pytest.mark.parametrize("packed", [False, True])
def test_gzip_is_seen_by_its_content(tmp_path: Path, name: str, packed: bool) -> None:
    data = json.dumps([record()]).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if packed else data)
    assert len(list(read_products(tmp_path / name))) == 1


# Hostile but legal


HOSTILE = [
    "<script>alert('x')</script><b>bold</b>",
    "\x00 NUL \x07 bell \x1b[2J \x7f \u0085 \u2028",
    "🛋️ 椅子 ‮right to left",
    "",
    "   ",
    "[SEP] click[buy now] search[x]",
    "\ufeff \ufffd \ufffe",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_kept_as_it_is(tmp_path: Path, text: str) -> None:
    product = one(
        tmp_path, name=text, full_description=text, small_description=[text, text], product_category=text
    )
    assert product.title == product.description == product.product_category == text
    assert product.bullets == (text, text)
    kept = write_catalogue([product], tmp_path / "c", source={})
    assert kept.product(0) == product


def test_a_lone_surrogate_becomes_the_replacement_character(tmp_path: Path) -> None:
    text = "a \ud83d b \udc00"
    assert one(tmp_path, name=text, query=text).title == "a \ufffd b \ufffd"
    attributes = {"A\ud800": {"attributes": [text]}}
    (product,) = read(tmp_path, record("A\ud800"), attributes=attributes)
    assert (product.asin, product.attributes) == ("A\ufffd", ("a \ufffd b \ufffd",))
    assert one(tmp_path, name="\ud83d\ude00").title == "😀"


def test_numbers_nobody_reads_may_be_anything(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    text = json.dumps([record(average_rating=0)])
    for number in ("NaN", "-Infinity", "1e999", "1" * 1000):
        path.write_text(text.replace('"average_rating": 0', f'"average_rating": {number}'))
        assert len(list(read_products(path))) == 1


def test_ten_megabytes_of_description(tmp_path: Path) -> None:
    text = "<p>é " * 2_000_000
    product, after = read(tmp_path, record("A", full_description=text), record("B"))
    assert product.description == text
    assert after.asin == "B"


# Broken records


BROKEN: list[tuple[dict[str, Any], str, str]] = [
    ({"name": None}, "name", "expected text, found null"),
    ({"name": 12}, "name", "expected text, found number 12"),
    ({"full_description": ["x"]}, "full_description", "found list of 1"),
    ({"category": True}, "category", "found boolean True"),
    ({"query": float("nan")}, "query", "found number nan"),
    ({"product_category": {}}, "product_category", "found object of 0"),
    ({"small_description": None}, r"small_description\[0\]", "found null"),
    ({"small_description": ["a", 1]}, r"small_description\[1\]", "found number 1"),
    ({"customization_options": "red"}, "customization_options", "found text 'red'"),
    ({"customization_options": ["red"]}, "customization_options", "found list"),
    ({"customization_options": {"c": "red"}}, r"customization_options\['c'\]", "expected a list of options"),
    ({"customization_options": {"c": [{}]}}, r"customization_options\['c'\]\[0\]", '"value"'),
    ({"customization_options": {"c": ["red"]}}, r"customization_options\['c'\]\[0\]", "found text 'red'"),
    ({"customization_options": {"c": [{"value": None}]}}, r"\['c'\]\[0\].value", "found null"),
]


@pytest.mark.parametrize(("fields", "field", "found"), BROKEN)
def test_a_wrong_type_is_named(tmp_path: Path, fields: dict[str, Any], field: str, found: str) -> None:
    with pytest.raises(DataError, match=rf"p\.json, record 2 \(ASIN 'B2'\), field .*{field}: ") as caught:
        read(tmp_path, record("B1"), record("B2", **fields))
    assert found in str(caught.value)


@pytest.mark.parametrize("field", [field for field in record() if field != "pricing"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    broken = record()
    del broken[field]
    with pytest.raises(DataError, match=f"field {field}: the field is missing"):
        read(tmp_path, broken)


@pytest.mark.parametrize("asin", [None, 7, float("nan"), ["B1"], ""])
def test_an_asin_must_be_text(tmp_path: Path, asin: Any) -> None:
    with pytest.raises(DataError, match=r"record 1(, | .*, )field asin: "):
        read(tmp_path, record(asin))


@pytest.mark.parametrize("value", [None, 3, "text", ["list"]])
def test_a_record_must_be_an_object(tmp_path: Path, value: Any) -> None:
    with pytest.raises(DataError, match="record 2: expected an object"):
        read(tmp_path, record(), value)


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("attributes", [], "expected an object"),
        ("attributes", {"attributes": None}, "field attributes: expected a list of texts, found null"),
        ("attributes", {"attributes": ["a", 2]}, r"field attributes\[1\]: expected text"),
        ("attributes", {"attributes": [], "instruction": 5}, "field instruction: expected text"),
        ("attributes", {"instruction_attributes": "x"}, "field instruction_attributes: expected a list"),
        ("human", {}, "expected a list of instructions"),
        ("human", ["x"], "instruction 1: expected an object"),
        ("human", [{}], "field instruction_attributes: the field is missing"),
        ("human", [{"instruction_attributes": ["a"], "instruction": "x"}], "field instruction_options"),
        (
            "human",
            [{"instruction_attributes": ["a"], "instruction_options": []}],
            "field instruction: the field is missing",
        ),
    ],
)
def test_broken_annotations(tmp_path: Path, name: str, entry: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"{name}\.json, record 'B1'.*{message}"):
        read(tmp_path, record("B1"), **{name: {"B1": entry}})


def test_bad_records_can_be_skipped(tmp_path: Path) -> None:
    report = new_report()
    records = [record(f"B{i}", name=i if i % 2 else "fine") for i in range(60)]
    found = read(tmp_path, *records, on_bad="skip", report=report)
    assert len(found) == 30 == report["bad"] == report["products"]
    assert len(report["reasons"]) == 20
    assert "record 2 (ASIN 'B1'), field name: expected text, found number 1" in report["reasons"][0]
    kept = write_catalogue(found, tmp_path / "c", source={"reading": report})
    assert kept.manifest["source"]["reading"]["bad"] == 30


# Broken files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"  \n ", "the file is empty"),
        (b"{}", r"expected an array of records.*found '\{'"),
        (b"hello", "expected an array of records.*found 'h'"),
        (b"[", "cut off"),
        (b"[1, ", "record 2: the file ends where a value should follow"),
        (b'[{"asin": "B', "record 1: the file is cut off"),
        (b'[{"asin": tr', "record 1: the file is cut off"),
        (b'[{"asin" "B"},' + b" " * 99 + b"]", r"record 1: not JSON: .* \(near character 9 "),
        (b'[{"a": "x\ny"}, {"a": "long enough"}]', "record 1: not JSON: Invalid control character"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff\xfe[\x00", "not UTF-8 near byte 0"),
        (b'["\xed\xa0\x80"]', "not UTF-8 near byte 2"),
        (b"\x1f\x8b\x08", "cut off|damaged"),
        (b"\x1f\x8bnonsense", "damaged"),
    ],
)
def test_broken_products_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "products.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        list(read_products(path, on_bad="skip"))
    assert str(path) in str(caught.value)


def good_then(rest: str) -> str:
    return f"[{json.dumps(record('B1'))}{rest}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (good_then("] x"), "the value is complete, but 'x' follows"),
        (good_then("}"), r"record after 1: expected ',' or '\]', found '\}'"),
        (good_then(""), "record after 1: expected .* the end of the file: it is cut off"),
        (good_then(",]"), "record 2: the file is cut off|record 2: not JSON"),
    ],
)
def test_a_file_that_breaks_off_gives_what_was_whole(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(text)
    found = read_products(path, on_bad="skip")
    assert next(found).asin == "B1"
    with pytest.raises(DataError, match=message):
        next(found)


def test_a_cut_or_damaged_gzip(tmp_path: Path) -> None:
    path = tmp_path / "p.json.gz"
    rng = np.random.default_rng(0)
    noise = [record(f"B{i}", full_description=rng.bytes(3000).hex()) for i in range(500)]
    whole = gzip.compress(json.dumps(noise).encode())
    for data in (whole[: len(whole) // 2], whole[:-4], whole[:20]):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"cut off; copy it again \(near character [0-9,]+ of the text\)"):
            list(read_products(path))
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    with pytest.raises(DataError, match=r"damaged|not UTF-8|not JSON|cut off"):
        list(read_products(path))


@pytest.mark.parametrize("name", ["attributes", "human"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("[]", "expected an object"),
        ('{"A": {"attributes": [', "cut off"),
        ('{"A": {}', "cut off|not JSON"),
        ('{"A" {}}' + " " * 50, "expected ':'|not JSON"),
        ("{7: {}}" + " " * 50, "expected a key|not JSON"),
        ('{"A": {}} {}', "complete, but|follows"),
    ],
)
def test_broken_annotation_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / f"{name}.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        list(read_products(write(tmp_path / "p.json", [record()]), **{name: path}))
    assert caught.value.file == path


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        list(read_products(tmp_path / "missing.json"))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_products(tmp_path))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(
    values=st.lists(json_values, max_size=6),
    chunk=st.integers(1, 40),
    indent=st.sampled_from([None, 0, 3]),
    ascii_only=st.booleans(),
)
@example(values=[-1, 12, 1.5, "\\", '"', True], chunk=1, indent=None, ascii_only=True)
def test_streams_equal_json_load_wherever_the_text_is_cut(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: list[Any],
    chunk: int,
    indent: int | None,
    ascii_only: bool,
) -> None:
    monkeypatch.setattr(jsonstream, "CHUNK", chunk)
    path = tmp_path / "x.json"
    path.write_bytes(json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode())
    assert list(jsonstream.array_items(path)) == values
    members = {f'k"{i}': value for i, value in enumerate(values)}
    path.write_bytes(json.dumps(members, indent=indent, ensure_ascii=ascii_only).encode())
    assert {key: json.loads(text) for key, text in jsonstream.object_members(path)} == members
    assert jsonstream.read_whole(path) == members


def test_a_repeated_key_counts_last(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"B1": {"attributes": ["old"]}, "B1": {"attributes": ["new"]}}')
    (product,) = read_products(write(tmp_path / "p.json", [record("B1")]), path)
    assert product.attributes == ("new",)


def test_a_byte_order_mark_is_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps([record()]).encode())
    assert len(list(read_products(path))) == 1


# The catalogue on disk


def product(asin: str = "B1", **fields: Any) -> Product:
    base = Product(
        asin, "Oak Table", "Solid.", ("wood",), "garden", "tables", "Home", "$1.0", (1.0,), {}, ("a",)
    )
    return replace(base, **fields)


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
@given(wanted=st.lists(products, min_size=1, max_size=5, unique_by=lambda item: item.asin))
def test_products_come_back_as_they_were(tmp_path: Path, wanted: list[Product]) -> None:
    kept = write_catalogue(wanted, tmp_path / "c", source={})
    assert [kept.product(i) for i in range(len(kept))] == wanted
    for i, item in enumerate(wanted):
        assert list(kept.product(i).options) == list(item.options)  # their order shows on the pages
        assert (kept.asin(i), kept.number(item.asin)) == (item.asin, i)
        assert kept.nouns(i) == nouns(item.title)
        folded = [other.asin.lower() for other in wanted].index(item.asin.lower())
        assert kept.number_folded(item.asin) == folded
        assert (
            kept.number_folded(item.asin.upper()) is not None
            or item.asin.upper().lower() != item.asin.lower()
        )
        for value, numbers in (
            (item.query, kept.by_query(item.query)),
            (item.category, kept.by_category(item.category)),
        ):
            assert i in numbers, value
        for attribute in item.attributes:
            assert list(kept.by_attribute(attribute)) == [
                j for j, other in enumerate(wanted) if attribute in other.attributes
            ]


def test_lookups(tmp_path: Path) -> None:
    wanted = [
        product("B2", query="chairs", attributes=("soft", "soft", "red")),
        product("b1", category="beauty"),
        product("B1", attributes=()),
        product("A\x00"),
        product("A"),
    ]
    kept = write_catalogue(wanted, tmp_path / "c", source={})
    assert [kept.number(asin) for asin in ("B2", "b1", "B1", "A", "A\x00", "a", "", "B3")] == [
        0, 1, 2, 4, 3, None, None, None,
    ]  # fmt: skip
    assert [kept.number_folded(asin) for asin in ("b2", "B1", "a", "c")] == [0, 1, 4, None]
    assert list(kept.by_query("tables")) == [1, 2, 3, 4]
    assert list(kept.by_category("beauty")) == [1]
    assert list(kept.by_attribute("soft")) == [0]
    assert len(kept.by_query("x")) == len(kept.by_category("")) == len(kept.by_attribute("SOFT")) == 0
    numbers = kept.by_attribute("a")
    assert (numbers[0], type(numbers[0]), len(numbers)) == (1, int, 3)
    for number in (-1, 5):
        for method in (kept.product, kept.nouns, kept.asin):
            with pytest.raises(IndexError):
                method(number)


def test_ties_of_a_search_rank_by_ascending_asin(tmp_path: Path) -> None:
    asins = ["b", "C", "A", "é", "B", "a", "0", "😀", "\uffff"]
    kept = write_catalogue([product(asin) for asin in asins], tmp_path / "c", source={})
    found = kept.search("oak table")
    assert [kept.asin(number) for number in found] == sorted(asins)
    assert all(type(number) is int for number in found)
    assert kept.search("oak table") is found
    assert kept.search("") == kept.search("zzz \x00 unknown") == ()


def test_a_search_gives_fifty(tmp_path: Path) -> None:
    kept = write_catalogue([product(f"B{i:03}") for i in range(80)], tmp_path / "c", source={})
    assert kept.search("oak") == tuple(range(50))


def test_equal_hashes_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repro_rl.envs.webshop.data.tables._hash", lambda text: 7)
    keys = ["x", "y", "z", "y"]
    save_hashes(tmp_path, "k", keys)
    names = Names(tmp_path, "k", keys.__getitem__)
    assert [names.find(key) for key in "xyzw"] == [0, 1, 2, None]


def test_the_manifest_and_the_digest(tmp_path: Path) -> None:
    some = [product("B1"), product("B2")]
    seen: list[tuple[str, int]] = []
    first = write_catalogue(
        some, tmp_path / "a", source={"kind": "x"}, on_done=lambda *done: seen.append(done)
    )
    again = write_catalogue(iter(some), tmp_path / "b", source={})
    assert first.digest == again.digest
    assert len(first.digest) == 64
    assert write_catalogue(some[::-1], tmp_path / "b", source={}).digest != first.digest
    assert (
        write_catalogue([some[0], product("B2", title="x")], tmp_path / "b", source={}).digest != first.digest
    )
    assert first.manifest["tagger"] == tagger_name()
    assert first.manifest["source"] == {"kind": "x"}
    assert first.manifest["products"] == 2
    assert ("products", 2) in seen
    assert seen[-1] == ("index", 2)
    # worked out once, so that no machine and no version changes it silently
    assert first.digest == "6e3fd18201e862a03ab759a2d2bf8a3bffbd215d8837478c862a270473370c0f"


def test_what_cannot_be_written(tmp_path: Path) -> None:
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


def test_one_catalogue_a_process(tmp_path: Path) -> None:
    write_catalogue([product("B1")], tmp_path / "c", source={})
    first = open_catalogue(tmp_path / "c")
    assert open_catalogue(tmp_path / "." / "c") is first
    assert pickle.loads(pickle.dumps(first)) is first
    write_catalogue([product("B2")], tmp_path / "c", source={})
    assert open_catalogue(tmp_path / "c").asin(0) == "B2"
    assert first.product(0).asin == "B1"  # who has it open keeps what it opened


def everything(kept: Catalogue) -> None:
    """Touch all of a catalogue."""
    kept.verify()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def files_of_a_catalogue() -> list[str]:
    return [
        f"{name}.{end}"
        for name in ("products", "nouns", "asins", "query.keys", "query.numbers", "attribute.keys")
        for end in ("bin", "ends.u8")
    ] + ["order.u4", "asin.hash.u8", "asin_folded.row.u4", "category.hash.u8", "manifest.json", "index/*"]


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("name", files_of_a_catalogue())
def test_damage_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    small: bool,
    damage: Callable[[Path], None],
) -> None:
    folder = tmp_path / "c"
    write_catalogue([product(f"B{i}", description="long " * 50) for i in range(30)], folder, source={})
    if not small:
        monkeypatch.setattr(store, "CHECKED", 0)  # as for a large catalogue: contents are not read at opening
    path = sorted(folder.glob(name))[0]
    damage(path)
    with pytest.raises(
        DataError, match=r"import it again|there is no WebShop catalogue|something else"
    ) as caught:
        everything(Catalogue.open(folder))
    assert path.name in str(caught.value) or name in ("manifest.json", "index/*")


def test_a_damaged_row_of_a_large_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "c"
    write_catalogue(
        [product(f"B{i}", description=os.urandom(200).hex()) for i in range(3)], folder, source={}
    )
    monkeypatch.setattr(store, "CHECKED", 0)
    flip(folder / "products.bin")
    kept = Catalogue.open(folder)
    assert kept.product(0).asin == "B0"
    with pytest.raises(DataError, match=r"products\.bin, record 1: .* import it again"):
        kept.product(1)


def test_other_versions_and_strangers(tmp_path: Path) -> None:
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
    monkeypatch.setattr(store, "check_files", lambda *arguments, **named: None)
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


# Finding and making it


def originals(folder: Path, small: bool = True, *asins: str, packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    names = store.SMALL if small else store.FULL
    values = (
        [record(asin) for asin in asins or ("B1", "B2", "B3")],
        {"B1": {"attributes": ["oak"], "instruction": "an oak table", "instruction_attributes": ["oak"]}},
        {},
    )
    for name, value in zip(names, values, strict=True):
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(json.dumps(value).encode()))
        else:
            write(folder / name, value)
    return folder


def test_the_original_files_are_imported_once(tmp_path: Path, cache: Path) -> None:
    data = originals(tmp_path / "data")
    seen: list[tuple[str, int]] = []
    folder = locate(data, on_done=lambda *done: seen.append(done))
    assert folder.parent == cache
    kept = open_catalogue(folder)
    assert kept.product(0).attributes == ("oak",)
    assert kept.manifest["source"]["files"][0] == str(data / store.SMALL[0])
    assert kept.manifest["source"]["reading"]["records"] == 3
    before = len(seen)
    assert locate(data, on_done=lambda *done: seen.append(done)) == folder
    assert len(seen) == before
    assert open_catalogue(locate(data, limit=2)).manifest["products"] == 2
    assert locate(data / store.SMALL[0]) == folder
    assert locate(folder) == folder
    write(data / store.SMALL[0], [record("B9")])
    os.utime(data / store.SMALL[0], (1, 1))
    assert len(open_catalogue(locate(data))) == 1


def test_which_files_go_together(tmp_path: Path) -> None:
    both = originals(originals(tmp_path / "both"), small=False)
    small = tuple(both / name for name in store.SMALL)
    full = tuple(both / name for name in store.FULL)
    assert find_files(both, None, None, None) == small
    assert find_files(both, store.FULL[0], None, None) == full
    assert find_files(both, store.SMALL[0], None, store.FULL[2]) == (*small[:2], full[2])
    assert find_files(both, full[0], small[1], None) == (full[0], small[1], full[2])
    (both / store.SMALL[1]).unlink()
    (both / store.SMALL[2]).unlink()
    assert find_files(both, None, None, None) == (small[0], *full[1:])
    (both / store.FULL[2]).unlink()
    assert find_files(both, None, None, None)[2] is None
    packed = originals(tmp_path / "packed", packed=True)
    assert find_files(packed, None, None, None)[0] == packed / f"{store.SMALL[0]}.gz"
    mixed = originals(tmp_path / "mixed")
    (mixed / store.SMALL[0]).rename(mixed / store.FULL[0])
    with pytest.raises(
        DataError, match=r"no attributes file; looked for items_ins_v2\.json, items_ins_v2\.json\.gz\. Get"
    ):
        find_files(mixed, None, None, None)


def test_what_is_not_found_is_explained(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"looked for items_shuffle_1000\.json, .*, items_shuffle\.json\.gz"):
        locate(tmp_path / "empty")
    with pytest.raises(DataError, match="there is no such folder"):
        locate(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no products file; looked for mine\.json"):
        locate(originals(tmp_path / "data"), "mine.json")
    with pytest.raises(DataError, match=r"no human file; looked for h\.json"):
        locate(tmp_path / "data", human="h.json")
    with pytest.raises(DataError, match="name your data as well"):
        locate(limit=5)
    with pytest.raises(DataError, match="when you import"):
        locate(locate(generated=(5, 0)), limit=5)


def test_the_generated_catalogue(cache: Path) -> None:
    folder = locate(generated=(40, 3))
    assert folder.parent == cache
    assert locate(generated=(40, 3)) == folder != locate(generated=(40, 4))
    kept = open_catalogue(folder)
    raw = generate_catalogue(40, 3)
    assert [kept.product(i) for i in range(40)] == list(products_from_raw(raw))
    assert [kept.asin(i) for i in range(40)] == [item["asin"] for item in raw.products]
    found = [kept.number(kept.product(i).asin) in kept.search(kept.product(i).title) for i in range(40)]
    assert all(found)
    assert any(item.human for item in products_from_raw(raw))


def test_a_broken_cache_is_made_again(cache: Path) -> None:
    folder = locate(generated=(5, 0))
    digest = open_catalogue(folder).digest
    for damage in (
        lambda: cut(folder / "products.bin"),
        lambda: (folder / "manifest.json").unlink(),
        lambda: (folder / "manifest.json").write_text("{"),
    ):
        damage()
        os.utime(folder, (1, 1))
        store._open.clear()
        leftover = cache / f".{folder.name}.1.aa.tmp"
        leftover.mkdir(exist_ok=True)
        assert open_catalogue(locate(generated=(5, 0))).digest == digest
        assert not leftover.exists()


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("REPRO_RL_CACHE", str(blocked / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.warns(RuntimeWarning, match="Set REPRO_RL_CACHE"):
        folder = locate(generated=(5, 0))
    assert tmp_path in folder.parents
    with pytest.warns(RuntimeWarning):
        assert locate(generated=(5, 0)) == folder


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPRO_RL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert sys.platform != "linux" or cache_root() == Path("/somewhere/repro-rl")
    monkeypatch.setenv("REPRO_RL_CACHE", "~/here")
    assert cache_root() == Path.home() / "here"


def _locate_in_another_process(barrier: Any, results: Any) -> None:
    barrier.wait()
    results.put((str(folder := locate(generated=(60, 1))), open_catalogue(folder).digest))


def _write_in_another_process(barrier: Any, results: Any, folder: Path) -> None:
    some = [product(f"B{i}") for i in range(50)]
    barrier.wait()
    for _ in range(4):
        write_catalogue(some, folder, source={})
    results.put("done")


def _together(target: Callable[..., None], count: int, *arguments: Any) -> list[Any]:
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    barrier, results = context.Barrier(count), context.Queue()
    processes = [context.Process(target=target, args=(barrier, results, *arguments)) for _ in range(count)]
    for process in processes:
        process.start()
    found = [results.get(timeout=100) for _ in processes]
    for process in processes:
        process.join(100)
        assert process.exitcode == 0
    return found


def test_processes_that_race_for_the_same_cache(cache: Path) -> None:
    assert len(set(_together(_locate_in_another_process, 3))) == 1
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


def test_processes_without_a_lock(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import nullcontext

    if sys.platform != "linux":
        pytest.skip("the patch reaches the other processes by fork only")
    monkeypatch.setattr(store, "_alone", lambda path: nullcontext(False))
    assert len(set(_together(_locate_in_another_process, 3))) == 1
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


def test_processes_that_write_over_each_other(tmp_path: Path) -> None:
    assert _together(_write_in_another_process, 2, tmp_path / "c") == ["done", "done"]
    assert len(Catalogue.open(tmp_path / "c")) == 50
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


# The commands


def command(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run ``repro-rl data webshop ...`` and return what it prints."""
    typer.main.get_command(data_app)(["webshop", *map(str, arguments)], standalone_mode=False)
    return capsys.readouterr().out


def test_import_and_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = originals(tmp_path / "data", True, "B1", "B2", "B2", "B3")
    out = tmp_path / "out"
    text = command(capsys, "import", data / store.SMALL[0], "--out", out, "--limit", "3")
    assert "2 products (1 records left out)" in text
    assert f"data={out}" in text
    assert tagger_name() in text
    text = command(capsys, "info", out, "--check")
    for part in (
        "first 3 records",
        str(data / store.SMALL[1]),
        Catalogue.open(out).digest,
        "All files are whole.",
    ):
        assert part in text, part
    assert locate(out) == out


def test_import_can_skip_broken_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = originals(tmp_path / "data")
    path = write(data / "mine.json", [record("B1"), *(record(f"B{i}", name=1) for i in range(2, 30))])
    given = ("import", path, "--attributes", data / store.SMALL[1], "--out", tmp_path / "out")
    with pytest.raises(DataError, match="record 2"):
        command(capsys, *given)
    text = command(capsys, *given, "--skip-bad")
    assert "1 products (28 records left out)" in text
    assert text.count("skipped: file") == 20
    assert "skipped: 8 more" in text
    assert "broken, skipped" in command(capsys, "info", tmp_path / "out")
    with pytest.raises(DataError, match="there is no such file"):
        command(capsys, "import", tmp_path / "none.json")


def test_attributes_of_other_products_are_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = originals(tmp_path / "data", True, "C1")
    assert "Careful: none of the products" in command(
        capsys, "import", data / store.SMALL[0], "--out", tmp_path / "out"
    )


def test_generate(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, raw = tmp_path / "out", tmp_path / "raw"
    assert "30 products" in command(capsys, "generate", "--products", "30", "--seed", "2", "--out", out)
    assert "generated: 30 products, seed 2" in command(capsys, "info", out)
    command(capsys, "generate", "--products", "30", "--seed", "2", "--out", raw, "--raw")
    assert Catalogue.open(locate(raw)).digest == Catalogue.open(out).digest


# The real thousand products


def test_the_real_products(shared: Path, tmp_path: Path, cache: Path) -> None:
    folder = locate(shared)
    kept = open_catalogue(folder)
    raw = json.loads(gzip.decompress((shared / "items_shuffle_1000.json.gz").read_bytes()))
    assert len(kept) == len(raw) == 1000
    for number, item in enumerate(raw):
        found = kept.product(number)
        assert (found.asin, found.title, found.description) == (
            item["asin"],
            item["name"],
            item["full_description"],
        )
        assert kept.number(found.asin) == kept.number_folded(found.asin.lower()) == number
        assert number in kept.by_query(found.query)
        assert number in kept.by_category(found.category)
    assert sum(found.instruction is not None for found in map(kept.product, range(1000))) == 415
    assert sum(len(found.prices) == 2 for found in map(kept.product, range(1000))) == 93
    assert sum(len(found.human) for found in map(kept.product, range(1000))) == 13
    assert (
        sum(len(kept.by_category(name)) for name in {kept.product(i).category for i in range(1000)}) == 1000
    )
    assert kept.manifest["source"]["reading"]["with_attributes"] == 1000
    size = sum(file["bytes"] for file in kept.manifest["files"].values())
    assert size < 4_000_000


def test_the_real_searches(shared: Path, cache: Path) -> None:
    """Top 50 of the original for 210 queries, ties included."""
    kept = open_catalogue(locate(shared))
    for line in gzip.decompress((shared / "search.jsonl.gz").read_bytes()).splitlines():
        case = json.loads(line)
        assert [kept.asin(number) for number in kept.search(case["query"])] == case["asins"], case["query"]


def test_the_products_are_compressed(tmp_path: Path) -> None:
    kept = write_catalogue([product(description="word " * 10_000)], tmp_path / "c", source={})
    assert (kept.folder / "products.bin").stat().st_size < 1000
    assert zlib.decompress((kept.folder / "products.bin").read_bytes()).startswith(b'{"asin":"B1"')
