"""Records and files in the original's schema, and products, for tests."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from repro_rl.envs.webshop.data import catalogue as catalogue_module
from repro_rl.envs.webshop.data.products import Product


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


def product(asin: str = "B1", **fields: Any) -> Product:
    base = Product(
        asin, "Oak Table", "Solid.", ("wood",), "garden", "tables", "Home", "$1.0", (1.0,), {}, ("a",)
    )
    return replace(base, **fields)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def originals(folder: Path, small: bool = True, *asins: str, packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    names = catalogue_module.SMALL if small else catalogue_module.FULL
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
