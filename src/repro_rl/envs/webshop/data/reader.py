"""Reads WebShop's own data files, checks every record, and cleans it as the original does.

Text is not changed (HTML, control characters, emoji, any length), with one exception: a lone surrogate, which
no UTF-8 file can hold, becomes U+FFFD. NaN and Infinity are accepted where JSON numbers are ignored anyway.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

from repro_rl.envs.webshop.data.jsonstream import array_items, object_members, read_whole
from repro_rl.envs.webshop.data.products import DEFAULT_PRICE, NO_ATTRIBUTE, HumanInstruction, Product
from repro_rl.errors import DataError

if TYPE_CHECKING:
    from repro_rl.envs.webshop.data.generate import RawCatalogue

ASIN_LENGTH = 10  # longer ids are left out, as in the original
REASONS = 20  # bad records whose errors are reported
OnBad = Literal["error", "skip"]
T = TypeVar("T")
_NOT_PRICE = re.compile(r"[^\d.]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class ReadReport(TypedDict):
    """Counts of the records; filled while ``read_products`` is consumed."""

    records: int  # read so far
    products: int  # yielded so far
    without_asin: int  # "nan", or longer than an ASIN
    repeated: int  # ASIN seen before
    with_attributes: int  # products with an entry in the attributes file
    bad: int  # skipped records, with on_bad="skip"
    reasons: list[str]  # error messages of the first 20 bad records


def new_report() -> ReadReport:
    return ReadReport(records=0, products=0, without_asin=0, repeated=0, with_attributes=0, bad=0, reasons=[])


def read_products(
    products: Path,
    attributes: Path | None = None,
    human: Path | None = None,
    *,
    limit: int | None = None,
    on_bad: OnBad = "error",
    report: ReadReport | None = None,
) -> Iterator[Product]:
    """The products of the original's files, in file order, one at a time.

    ``products``, ``attributes``, ``human``: ``.json`` files, plain or gzip whatever their names say.
    ``limit``: how many records of the products file are read. ``on_bad``: "error" raises at the first bad
    record, "skip" omits it and counts it in ``report``. The attributes of all products are buffered in a
    temporary file; memory holds about 0.2 KB per product.

    Raises DataError naming file, record and field. A file that is not complete JSON is always an error.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}; it must be at least 1")
    people = _human_entries(human)
    with _AttributeFile(attributes) as entries:
        source = _Source(products, attributes, human, entries.get, people.get)
        yield from _products(
            array_items(products), source, limit, on_bad, new_report() if report is None else report
        )


def products_from_raw(raw: RawCatalogue, report: ReadReport | None = None) -> Iterator[Product]:
    """The products of a catalogue in the original's schema that is in memory, through the same checks."""
    name = "(generated)"
    source = _Source(name, name, name, raw.attributes.get, raw.human.get)
    yield from _products(raw.products, source, None, "error", new_report() if report is None else report)


class _AttributeFile:
    """ASIN -> entry of the attributes file; a temporary file holds the entries."""

    def __init__(self, path: Path | None):
        self.path = path
        self.rows: dict[str, int] = {}
        self.ends = array("Q", [0])

    def __enter__(self) -> _AttributeFile:
        self.store = tempfile.TemporaryFile()
        try:
            for row, (asin, text) in enumerate(object_members(self.path) if self.path else ()):
                self.rows[_without_surrogates(asin)] = row  # of a repeated key the last one counts
                self.ends.append(self.ends[-1] + self.store.write(text.encode()))
        except BaseException:
            self.store.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def get(self, asin: str) -> Any:
        row = self.rows.get(asin)
        if row is None:
            return None
        self.store.seek(self.ends[row])
        return json.loads(self.store.read(self.ends[row + 1] - self.ends[row]))


def _human_entries(path: Path | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    entries = read_whole(path)
    if not isinstance(entries, dict):
        raise DataError(f"expected an object with one member per ASIN, found {_kind(entries)}", file=path)
    return {_without_surrogates(asin): value for asin, value in entries.items()}


@dataclass(slots=True, frozen=True)
class _Source:
    """The names of the files, for messages, and the look-ups of a product's attributes and instructions."""

    products: object
    attributes: object
    human: object
    attributes_of: Callable[[str], Any]  # ASIN -> entry of the attributes file
    human_of: Callable[[str], Any]  # ASIN -> entry of the human file


def _products(
    records: Iterable[Any], source: _Source, limit: int | None, on_bad: OnBad, report: ReadReport
) -> Iterator[Product]:
    asins: set[str] = set()
    for number, record in enumerate(records, start=1):
        report["records"] = number
        try:
            product = _product(record, number, source, asins, report)
        except DataError as problem:
            if on_bad == "error":
                raise
            report["bad"] += 1
            if len(report["reasons"]) < REASONS:
                report["reasons"].append(str(problem))
            product = None
        if product is not None:
            report["products"] += 1
            yield product
        if number == limit:
            return


class _Fields:
    """Typed access to the fields of one record; every error names file, record and field."""

    def __init__(self, values: Any, file: object, record: str):
        self.file, self.record = file, record
        if not isinstance(values, dict):
            raise self.error(None, f"expected an object, found {_kind(values)}")
        self.values: dict[str, Any] = values

    def error(self, field: str | None, message: str) -> DataError:
        return DataError(message, file=self.file, record=self.record, field=field)

    def required(self, field: str) -> Any:
        if field not in self.values:
            raise self.error(field, "the field is missing")
        return self.values[field]

    def text(self, field: str) -> str:
        return self.as_text(self.required(field), field)

    def as_text(self, value: Any, field: str) -> str:
        if not isinstance(value, str):
            raise self.error(field, f"expected text, found {_kind(value)}")
        return _without_surrogates(value)

    def as_texts(self, value: Any, field: str) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise self.error(field, f"expected a list of texts, found {_kind(value)}")
        return tuple(self.as_text(item, f"{field}[{i}]") for i, item in enumerate(value))


def _product(
    record: Any, number: int, source: _Source, asins: set[str], report: ReadReport
) -> Product | None:
    """The product of a record; None where the original omits the record. ``asins``: those read so far."""
    fields = _Fields(record, source.products, str(number))
    asin = fields.text("asin")
    fields.record = f"{number} (ASIN {_short(asin)})"
    if not asin:
        raise fields.error("asin", "empty: such a product could never be opened")
    if asin == "nan" or len(asin) > ASIN_LENGTH:
        report["without_asin"] += 1
        return None
    if asin in asins:
        report["repeated"] += 1
        return None
    asins.add(asin)
    bullets = fields.required("small_description")
    tag, prices = _price(fields)
    entry = source.attributes_of(asin)
    attributes: tuple[str, ...] = (NO_ATTRIBUTE,)
    instruction: str | None = None
    instruction_attributes: tuple[str, ...] = ()
    if entry is not None:
        extra = _Fields(entry, source.attributes, repr(asin))
        if "attributes" in extra.values:
            attributes = extra.as_texts(extra.values["attributes"], "attributes")
        instruction = _or_none(extra, "instruction", extra.as_text)
        instruction_attributes = _or_none(extra, "instruction_attributes", extra.as_texts) or ()
    product = Product(
        asin=asin,
        title=fields.text("name"),
        description=fields.text("full_description"),
        bullets=fields.as_texts(bullets if isinstance(bullets, list) else [bullets], "small_description"),
        category=fields.text("category"),
        query=fields.text("query").lower().strip(),
        product_category=fields.text("product_category"),
        price_tag=tag,
        prices=prices,
        options=_options(fields),
        attributes=attributes,
        instruction=instruction,
        instruction_attributes=instruction_attributes,
        human=_human(source.human_of(asin), source.human, f"{asin!r}, product record {number}"),
    )
    report["with_attributes"] += entry is not None
    return product


def _price(fields: _Fields) -> tuple[str, tuple[float, ...]]:
    """("$9.99 to $11.99", (9.99, 11.99)); no prices where the record has none."""
    value = fields.values.get("pricing")
    if not value:
        return f"${DEFAULT_PRICE}", ()
    text = fields.as_text(value, "pricing")
    prices = []
    for part in text.split("$")[1:]:
        try:
            prices.append(float(_NOT_PRICE.sub("", part)))
        except ValueError:
            prices.append(math.nan)
    if not prices or not all(map(math.isfinite, prices)):
        raise fields.error(
            "pricing", f"expected a price such as '$9.99' or '$9.99 - $11.99', found {_short(text)}"
        )
    ends = tuple(prices[:2])
    return " to ".join(f"${price}" for price in ends), ends


def _options(fields: _Fields) -> dict[str, tuple[str, ...]]:
    groups = fields.required("customization_options")
    if not groups:
        return {}
    if not isinstance(groups, dict):
        raise fields.error(
            "customization_options", f"expected an object of option groups, found {_kind(groups)}"
        )
    options: dict[str, tuple[str, ...]] = {}
    for name, contents in groups.items():
        if contents is None:
            continue
        where = f"customization_options[{_short(name)}]"
        if not isinstance(contents, list):
            raise fields.error(where, f"expected a list of options, found {_kind(contents)}")
        values = []
        for i, content in enumerate(contents):
            if not isinstance(content, dict) or "value" not in content:
                raise fields.error(
                    f"{where}[{i}]", f'expected an object with "value", found {_kind(content)}'
                )
            value = fields.as_text(content["value"], f"{where}[{i}].value")
            values.append(value.strip().replace("/", " | ").lower())
        options[_without_surrogates(name).lower()] = tuple(values)
    return options


def _human(entries: Any, file: object, record: str) -> tuple[HumanInstruction, ...]:
    """Human instructions of a product. One without attributes is never used, so its rest is not checked."""
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise DataError(f"expected a list of instructions, found {_kind(entries)}", file=file, record=record)
    instructions = []
    for i, entry in enumerate(entries, start=1):
        fields = _Fields(entry, file, f"{record}, instruction {i}")
        attributes = fields.as_texts(fields.required("instruction_attributes"), "instruction_attributes")
        if attributes:
            options = fields.as_texts(fields.required("instruction_options"), "instruction_options")
            instructions.append(HumanInstruction(fields.text("instruction"), attributes, options))
        else:
            text = fields.values.get("instruction")
            text = _without_surrogates(text) if isinstance(text, str) else ""
            instructions.append(HumanInstruction(text, (), ()))
    return tuple(instructions)


def _or_none(fields: _Fields, field: str, read: Callable[[Any, str], T]) -> T | None:
    value = fields.values.get(field)
    return None if value is None else read(value, field)


def _without_surrogates(text: str) -> str:
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text)
    return text


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _kind(value: Any) -> str:
    """Type of a JSON value, and the value itself where it is short; for messages."""
    if value is None:
        return "null"
    names = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    name = names.get(type(value), type(value).__name__)
    if isinstance(value, list | dict):
        return f"{name} of {len(value)}"
    return f"{name} {_short(value) if isinstance(value, str) else str(value)[:60]}"
