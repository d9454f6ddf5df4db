"""The library is built once, by any compiler there is; where it cannot be, the reason is a clause."""

from __future__ import annotations

import gc
import hashlib
import stat
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from repro_rl.policy.decoding.kernels import build, library
from repro_rl.policy.decoding.kernels.build import BuildError, build_library
from repro_rl.policy.decoding.kernels.library import DecodeKernels, load_kernels
from repro_rl.policy.decoding.wide.compiled_pass import find_kernels
from support.kernels import needs_kernels
from support.models import network


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache, and nothing loaded yet."""
    monkeypatch.setenv("REPRO_RL_CACHE", str(tmp_path / "cache"))
    library._loaded.cache_clear()
    yield tmp_path / "cache" / "kernels"
    library._loaded.cache_clear()


def fake_compiler(folder: Path, script: str) -> None:
    """A g++ that is this shell script, and no other compiler."""
    folder.mkdir()
    path = folder / "g++"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@needs_kernels
def test_it_is_built_once(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = build_library()
    assert built.parent == own_cache
    assert list(own_cache.iterdir()) == [built]  # nothing temporary is left
    before = built.stat().st_mtime_ns
    assert build_library() == built
    assert built.stat().st_mtime_ns == before
    monkeypatch.setattr(build, "this_processor", lambda: None)  # a machine that shares the cache
    assert build_library() != built
    assert isinstance(load_kernels(torch.bfloat16), DecodeKernels)


@needs_kernels
@pytest.mark.parametrize("damage", ["cut", "emptied", "changed"])
def test_a_damaged_library_is_built_again(damage: str, own_cache: Path) -> None:
    """Loading one would end the process."""
    built = build_library()
    whole = built.read_bytes()
    damaged = {
        "cut": whole[: len(whole) // 3],
        "emptied": b"",
        "changed": whole[:4096] + bytes(len(whole) - 4096),
    }
    built.write_bytes(damaged[damage])
    assert build_library() == built
    assert built.read_bytes()[:4096] == whole[:4096]
    assert isinstance(load_kernels(torch.float32), DecodeKernels)


@needs_kernels
def test_a_library_of_another_system_is_built_again(own_cache: Path) -> None:
    content = b"no library of this system"
    build_library().write_bytes(content + hashlib.sha256(content).digest())
    assert isinstance(load_kernels(torch.float32), DecodeKernels)


def test_a_model_without_kernels_is_freed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The reason is kept, not the error with all that its traceback holds."""
    monkeypatch.setenv("PATH", str(tmp_path))
    model = network("llama", head_dim=32, hidden_size=128)
    for _ in range(3):
        assert find_kernels("auto", model).kernels is None
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


@needs_kernels
def test_without_openmp_for_one_thread_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "THREADS", "-fopenmp=none-such")
    assert not load_kernels(torch.float32).has_threads
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(BuildError, match="the compiler has no OpenMP, and torch uses several threads"):
            load_kernels(torch.float32)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (None, r"no C\+\+ compiler \(g\+\+, c\+\+, clang\+\+\) was found"),
        ("echo 'decode.cpp:1: no' >&2; exit 1", r"g\+\+ does not compile them: decode.cpp:1: no"),
        ("exec /bin/sleep 20", r"g\+\+ took more than 0.5 seconds"),
        ("exit 0", r"g\+\+ does not compile them: it says nothing"),
        (r"printf '\377\376 omp no' >&2; exit 1", r"g\+\+ does not compile them: .* omp no"),
        # Writes what is no library: loading says so.
        (
            'while [ "$1" != "-o" ]; do shift || exit 0; done; echo text > "$2"',
            "the library cannot be loaded",
        ),
    ],
)
@pytest.mark.skipif(not build.sys.platform.startswith("linux"), reason="built on Linux alone")
def test_why_there_is_none(
    script: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script is not None:
        fake_compiler(tmp_path / "bin", script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(build, "SECONDS", 0.5)
    unexpected = script is not None
    with (
        pytest.warns(UserWarning, match=f"without compiled kernels: .*{words}")
        if unexpected
        else nullcontext(),
        pytest.raises(BuildError, match=words),
    ):
        load_kernels(torch.float32)
    with pytest.raises(BuildError, match=words):  # told once
        load_kernels(torch.float32)


def test_where_the_cache_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("REPRO_RL_CACHE", str(tmp_path / "file"))
    fake_compiler(tmp_path / "bin", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(build.sys, "platform", "linux")
    with pytest.raises(BuildError, match=r"the library cannot be written: .*file"):
        build_library()


def test_without_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    fake_compiler(tmp_path / "bin", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(build, "cache_root", no_home)
    monkeypatch.setattr(build.sys, "platform", "linux")
    words = r"Could not determine home directory; set REPRO_RL_CACHE to a folder that can be"
    with pytest.raises(BuildError, match=words):
        build_library()


def test_a_compiler_that_cannot_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_compiler(tmp_path / "bin", "")
    (tmp_path / "bin" / "g++").write_bytes(b"\x7fELF no program")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(build.sys, "platform", "linux")
    with pytest.raises(BuildError, match=r"g\+\+ cannot be run: "):
        build_library()


def test_elsewhere_than_on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.sys, "platform", "darwin")
    with pytest.raises(BuildError, match="they are built on Linux alone"):
        load_kernels(torch.float32)
