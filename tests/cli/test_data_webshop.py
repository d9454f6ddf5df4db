"""The commands ``repro-rl data webshop``."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from repro_rl.cli.data import data_app
from repro_rl.envs.webshop.data import catalogue as catalogue_module
from repro_rl.envs.webshop.data.catalogue import (
    Catalogue,
    locate,
)
from repro_rl.envs.webshop.data.nouns import tagger_name
from repro_rl.errors import DataError
from support.webshop_data import originals, record, write


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REPRO_RL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "webshop"


def command(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run ``repro-rl data webshop ...`` and return what it prints."""
    typer.main.get_command(data_app)(["webshop", *map(str, arguments)], standalone_mode=False)
    return capsys.readouterr().out


def test_import_and_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = originals(tmp_path / "data", True, "B1", "B2", "B2", "B3")
    out = tmp_path / "out"
    text = command(capsys, "import", data / catalogue_module.SMALL[0], "--out", out, "--limit", "3")
    assert "2 products (1 records left out)" in text
    assert f"data={out}" in text
    assert tagger_name() in text
    text = command(capsys, "info", out, "--check")
    for part in (
        "first 3 records",
        str(data / catalogue_module.SMALL[1]),
        Catalogue.open(out).digest,
        "All files are whole.",
    ):
        assert part in text, part
    assert locate(out) == out


def test_import_can_skip_broken_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = originals(tmp_path / "data")
    path = write(data / "mine.json", [record("B1"), *(record(f"B{i}", name=1) for i in range(2, 30))])
    given = ("import", path, "--attributes", data / catalogue_module.SMALL[1], "--out", tmp_path / "out")
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
        capsys, "import", data / catalogue_module.SMALL[0], "--out", tmp_path / "out"
    )


def test_generate(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, raw = tmp_path / "out", tmp_path / "raw"
    assert "30 products" in command(capsys, "generate", "--products", "30", "--seed", "2", "--out", out)
    assert "generated: 30 products, seed 2" in command(capsys, "info", out)
    command(capsys, "generate", "--products", "30", "--seed", "2", "--out", raw, "--raw")
    assert Catalogue.open(locate(raw)).digest == Catalogue.open(out).digest
