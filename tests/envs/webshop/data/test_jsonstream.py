"""Streaming JSON files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from repro_rl.envs.webshop.data import jsonstream
from repro_rl.envs.webshop.data.reader import read_products
from repro_rl.errors import DataError
from repro_rl.files import json_data
from support.webshop_data import record, write


def test_a_cut_or_damaged_gzip(tmp_path: Path) -> None:
    path = tmp_path / "p.json.gz"
    rng = np.random.default_rng(0)
    noise = [record(f"B{i}", full_description=rng.bytes(3000).hex()) for i in range(500)]
    whole = gzip.compress(json.dumps(noise).encode())
    for data in (whole[: len(whole) // 2], whole[:-4], whole[:20]):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"cut off.*make it again \(near character [0-9,]+ of the text\)"):
            list(read_products(path))
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    with pytest.raises(DataError, match=r"damaged|not UTF-8|not JSON|cut off"):
        list(read_products(path))


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
def test_streams_equal_json_load_for_any_chunk_size(
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


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps([record()]).encode())
    assert len(list(read_products(path))) == 1


@pytest.mark.parametrize(
    "value",
    [
        "[" + "[]," * 600 + "1]",
        '[{"": 0}' + ',{"":0}' * 600 + "]",
        '["' + ",[{" * 99 + '"' + ",1" * 1001 + "]",
    ],
    ids=["lists", "objects", "a text of commas, then numbers"],
)
def test_a_value_of_too_many_values_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """At its end, and before it ends: a bomb is not decoded whole."""
    monkeypatch.setattr(jsonstream, "MAX_VALUES", 1000)
    monkeypatch.setattr(json_data, "MAX_VALUES", 1000)
    path = tmp_path / "x.json"
    for chunk in (100, 1 << 20):
        monkeypatch.setattr(jsonstream, "CHUNK", chunk)
        for end in ("", "}"):
            path.write_text(f'{{"B1": {value}{end}')
            with pytest.raises(
                DataError, match=r"x\.json.*one value holds more values than the limit of 1,000"
            ):
                jsonstream.read_whole(path)
            with pytest.raises(DataError, match=r"x\.json, record B1.*one value holds more values"):
                list(jsonstream.object_members(path))
    path.write_text(json.dumps([",[{" * 2000, *range(900)]))  # characters of texts are no values
    assert len(jsonstream.read_whole(path)) == 901


def test_small_values_behind_a_large_one_are_read_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonstream, "CHUNK", 100)
    monkeypatch.setattr(jsonstream, "MAX_VALUES", 100)
    monkeypatch.setattr(json_data, "MAX_VALUES", 100)
    path = tmp_path / "x.json"
    values = ["x" * 5000, *([n, [n]] for n in range(500))]
    path.write_text(json.dumps(values))
    assert list(jsonstream.array_items(path)) == values
