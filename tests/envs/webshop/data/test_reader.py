"""Reading the original's files: cleaning rules and broken records."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from repro_rl.envs.webshop.data.catalogue import (
    write_catalogue,
)
from repro_rl.envs.webshop.data.products import HumanInstruction, Product
from repro_rl.envs.webshop.data.reader import new_report, read_products
from repro_rl.errors import DataError
from support.webshop_data import record, write


def read(tmp_path: Path, *records: Any, **options: Any) -> list[Product]:
    """What the reader makes of these records; attributes and human entries by keyword."""
    files = {
        name: write(tmp_path / f"{name}.json", options.pop(name)) if name in options else None
        for name in ("attributes", "human")
    }
    return list(read_products(write(tmp_path / "p.json", list(records)), **files, **options))


def one(tmp_path: Path, **fields: Any) -> Product:
    return read(tmp_path, record(**fields))[0]


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
def test_unreadable_prices(tmp_path: Path, pricing: Any) -> None:
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
    item = one(tmp_path, customization_options={"A": [{"value": " Red/Blue "}]})
    assert item.options == {"a": ("red | blue",)}
    for nothing in ("", None, {}, [], 0, False):
        assert one(tmp_path, customization_options=nothing).options == {}


def test_bullets(tmp_path: Path) -> None:
    assert one(tmp_path, small_description="just one").bullets == ("just one",)
    assert one(tmp_path, small_description="").bullets == ("",)
    assert one(tmp_path, small_description=[]).bullets == ()


def test_omitted_records(tmp_path: Path) -> None:
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
def test_gzip_is_detected_by_content(tmp_path: Path, name: str, packed: bool) -> None:
    data = json.dumps([record()]).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if packed else data)
    assert len(list(read_products(tmp_path / name))) == 1


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
def test_text_is_not_changed(tmp_path: Path, text: str) -> None:
    product = one(
        tmp_path, name=text, full_description=text, small_description=[text, text], product_category=text
    )
    assert product.title == product.description == product.product_category == text
    assert product.bullets == (text, text)
    catalogue = write_catalogue([product], tmp_path / "c", source={})
    assert catalogue.product(0) == product


def test_a_lone_surrogate_becomes_the_replacement_character(tmp_path: Path) -> None:
    text = "a \ud83d b \udc00"
    assert one(tmp_path, name=text, query=text).title == "a \ufffd b \ufffd"
    attributes = {"A\ud800": {"attributes": [text]}}
    (product,) = read(tmp_path, record("A\ud800"), attributes=attributes)
    assert (product.asin, product.attributes) == ("A\ufffd", ("a \ufffd b \ufffd",))
    assert one(tmp_path, name="\ud83d\ude00").title == "😀"


def test_unused_numbers_may_be_anything(tmp_path: Path) -> None:
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
    catalogue = write_catalogue(found, tmp_path / "c", source={"reading": report})
    assert catalogue.manifest["source"]["reading"]["bad"] == 30


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
def test_an_incomplete_file_yields_its_complete_records(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(text)
    found = read_products(path, on_bad="skip")
    assert next(found).asin == "B1"
    with pytest.raises(DataError, match=message):
        next(found)


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
