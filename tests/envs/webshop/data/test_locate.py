"""Finding, importing and caching catalogues; concurrent processes."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repro_rl.envs.webshop.data import catalogue as catalogue_module
from repro_rl.envs.webshop.data.catalogue import (
    Catalogue,
    cache_root,
    find_files,
    generated_folder,
    locate,
    open_catalogue,
    write_catalogue,
)
from repro_rl.envs.webshop.data.generate import generate_catalogue
from repro_rl.envs.webshop.data.reader import products_from_raw
from repro_rl.errors import DataError
from support.webshop_data import cut, originals, product, record, write


def test_the_original_files_are_imported_once(tmp_path: Path, cache: Path) -> None:
    data = originals(tmp_path / "data")
    calls: list[tuple[str, int]] = []
    folder = locate(data, on_done=lambda *done: calls.append(done))
    assert folder.parent == cache
    catalogue = open_catalogue(folder)
    assert catalogue.product(0).attributes == ("oak",)
    assert catalogue.manifest["source"]["files"][0] == str(data / catalogue_module.SMALL[0])
    assert catalogue.manifest["source"]["reading"]["records"] == 3
    before = len(calls)
    assert locate(data, on_done=lambda *done: calls.append(done)) == folder
    assert len(calls) == before
    assert open_catalogue(locate(data, limit=2)).manifest["products"] == 2
    assert locate(data / catalogue_module.SMALL[0]) == folder
    assert locate(folder) == folder
    write(data / catalogue_module.SMALL[0], [record("B9")])
    os.utime(data / catalogue_module.SMALL[0], (1, 1))
    assert len(open_catalogue(locate(data))) == 1


def test_which_files_go_run_concurrently(tmp_path: Path) -> None:
    both = originals(originals(tmp_path / "both"), small=False)
    small = tuple(both / name for name in catalogue_module.SMALL)
    full = tuple(both / name for name in catalogue_module.FULL)
    assert find_files(both, None, None, None) == small
    assert find_files(both, catalogue_module.FULL[0], None, None) == full
    assert find_files(both, catalogue_module.SMALL[0], None, catalogue_module.FULL[2]) == (
        *small[:2],
        full[2],
    )
    assert find_files(both, full[0], small[1], None) == (full[0], small[1], full[2])
    (both / catalogue_module.SMALL[1]).unlink()
    (both / catalogue_module.SMALL[2]).unlink()
    assert find_files(both, None, None, None) == (small[0], *full[1:])
    (both / catalogue_module.FULL[2]).unlink()
    assert find_files(both, None, None, None)[2] is None
    packed = originals(tmp_path / "packed", packed=True)
    assert find_files(packed, None, None, None)[0] == packed / f"{catalogue_module.SMALL[0]}.gz"
    mixed = originals(tmp_path / "mixed")
    (mixed / catalogue_module.SMALL[0]).rename(mixed / catalogue_module.FULL[0])
    with pytest.raises(
        DataError, match=r"no attributes file; looked for items_ins_v2\.json, items_ins_v2\.json\.gz\. Get"
    ):
        find_files(mixed, None, None, None)


def test_the_error_names_the_missing_files(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"looked for items_shuffle_1000\.json, .*, items_shuffle\.json\.gz"):
        locate(tmp_path / "empty")
    with pytest.raises(DataError, match="there is no such folder"):
        locate(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no products file; looked for mine\.json"):
        locate(originals(tmp_path / "data"), "mine.json")
    with pytest.raises(DataError, match=r"no human file; looked for h\.json"):
        locate(tmp_path / "data", human="h.json")
    with pytest.raises(DataError, match="when you import"):
        locate(generated_folder(5, 0), limit=5)


def test_the_generated_catalogue(cache: Path) -> None:
    folder = generated_folder(40, 3)
    assert folder.parent == cache
    assert generated_folder(40, 3) == folder != generated_folder(40, 4)
    catalogue = open_catalogue(folder)
    raw = generate_catalogue(40, 3)
    assert [catalogue.product(i) for i in range(40)] == list(products_from_raw(raw))
    assert [catalogue.asin(i) for i in range(40)] == [item["asin"] for item in raw.products]
    listed = [
        catalogue.number(catalogue.product(i).asin) in catalogue.search(catalogue.product(i).title)
        for i in range(40)
    ]
    assert all(listed)
    assert any(item.human for item in products_from_raw(raw))


def test_a_broken_cache_is_replaced(cache: Path) -> None:
    folder = generated_folder(5, 0)
    digest = open_catalogue(folder).digest
    for damage in (
        lambda: cut(folder / "products.bin"),
        lambda: (folder / "manifest.json").unlink(),
        lambda: (folder / "manifest.json").write_text("{"),
    ):
        damage()
        os.utime(folder, (1, 1))
        catalogue_module._opened.clear()
        leftover = cache / f".{folder.name}.1.aa.tmp"
        leftover.mkdir(exist_ok=True)
        assert open_catalogue(generated_folder(5, 0)).digest == digest
        assert not leftover.exists()


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("REPRO_RL_CACHE", str(blocked / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.warns(RuntimeWarning, match="Set REPRO_RL_CACHE"):
        folder = generated_folder(5, 0)
    assert tmp_path in folder.parents
    with pytest.warns(RuntimeWarning):
        assert generated_folder(5, 0) == folder


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPRO_RL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert sys.platform != "linux" or cache_root() == Path("/somewhere/repro-rl")
    monkeypatch.setenv("REPRO_RL_CACHE", "~/here")
    assert cache_root() == Path.home() / "here"


def _locate_in_another_process(barrier: Any, results: Any) -> None:
    barrier.wait()
    results.put((str(folder := generated_folder(60, 1)), open_catalogue(folder).digest))


def _write_in_another_process(barrier: Any, results: Any, folder: Path) -> None:
    products = [product(f"B{i}") for i in range(50)]
    barrier.wait()
    for _ in range(4):
        write_catalogue(products, folder, source={})
    results.put("done")


def _run_concurrently(target: Callable[..., None], count: int, *arguments: Any) -> list[Any]:
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    barrier, results = context.Barrier(count), context.Queue()
    processes = [context.Process(target=target, args=(barrier, results, *arguments)) for _ in range(count)]
    for process in processes:
        process.start()
    answers = [results.get(timeout=100) for _ in processes]
    for process in processes:
        process.join(100)
        assert process.exitcode == 0
    return answers


def test_concurrent_processes_make_one_catalogue(cache: Path) -> None:
    assert len(set(_run_concurrently(_locate_in_another_process, 3))) == 1
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


def test_processes_without_a_lock(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import nullcontext

    if sys.platform != "linux":
        pytest.skip("the patch reaches the other processes by fork only")
    monkeypatch.setattr(catalogue_module, "_process_lock", lambda path: nullcontext(False))
    assert len(set(_run_concurrently(_locate_in_another_process, 3))) == 1
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


def test_concurrent_processes_replace_a_catalogue(tmp_path: Path) -> None:
    assert _run_concurrently(_write_in_another_process, 2, tmp_path / "c") == ["done", "done"]
    assert len(Catalogue.open(tmp_path / "c")) == 50
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_the_real_products(shared_webshop: Path, tmp_path: Path, cache: Path) -> None:
    folder = locate(shared_webshop)
    catalogue = open_catalogue(folder)
    raw = json.loads(gzip.decompress((shared_webshop / "items_shuffle_1000.json.gz").read_bytes()))
    assert len(catalogue) == len(raw) == 1000
    for number, item in enumerate(raw):
        actual = catalogue.product(number)
        assert (actual.asin, actual.title, actual.description) == (
            item["asin"],
            item["name"],
            item["full_description"],
        )
        assert catalogue.number(actual.asin) == number
        assert number in catalogue.by_query(actual.query)
        assert number in catalogue.by_category(actual.category)
    assert sum(item.instruction is not None for item in map(catalogue.product, range(1000))) == 415
    assert sum(len(item.prices) == 2 for item in map(catalogue.product, range(1000))) == 93
    assert sum(len(item.human) for item in map(catalogue.product, range(1000))) == 13
    assert (
        sum(len(catalogue.by_category(name)) for name in {catalogue.product(i).category for i in range(1000)})
        == 1000
    )
    assert catalogue.manifest["source"]["reading"]["with_attributes"] == 1000
    size = sum(file["bytes"] for file in catalogue.manifest["files"].values())
    assert size < 4_000_000


def test_the_real_searches(shared_webshop: Path, cache: Path) -> None:
    """Top 50 of the original for 210 queries, ties included."""
    catalogue = open_catalogue(locate(shared_webshop))
    for line in gzip.decompress((shared_webshop / "search.jsonl.gz").read_bytes()).splitlines():
        case = json.loads(line)
        assert [catalogue.asin(number) for number in catalogue.search(case["query"])] == case["asins"], case[
            "query"
        ]
