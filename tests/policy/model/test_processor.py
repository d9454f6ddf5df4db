"""What is read of a machine's processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro_rl.policy.model import processor
from repro_rl.policy.model.processor import mkl_leaves_avx512, read_processor
from support.processors import GRAVITON3, HASWELL, SAPPHIRE_RAPIDS, ZEN3, ZEN4


@pytest.mark.parametrize(
    ("text", "slow"),
    [
        (ZEN4, True),
        (ZEN3, False),
        (SAPPHIRE_RAPIDS, False),
        (HASWELL, False),
        (GRAVITON3, False),
        ("", False),
        (None, False),
    ],
)
def test_where_mkl_leaves_avx512_unused(
    text: str | None, slow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(processor, "CPU_INFO", path)
    mkl_leaves_avx512.cache_clear()
    try:
        assert mkl_leaves_avx512() is slow
    finally:
        mkl_leaves_avx512.cache_clear()


def test_the_first_processor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(ZEN4)
    found = read_processor(path)
    assert found is not None
    assert (found.vendor, found.flags) == (
        "AuthenticAMD",
        frozenset({"fpu", "avx2", "avx512f", "avx512_bf16"}),
    )
    path.write_text("vendor_id : GenuineIntel")
    assert read_processor(path) is None
    assert read_processor(tmp_path / "none") is None
