"""Fixtures that cost seconds are built once a session: a tiny model folder and a short warm start."""

from __future__ import annotations

import os
import signal
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hypothesis import HealthCheck, settings

from support.api_server import Server
from support.extending_page import my_rl  # noqa: F401  (a fixture of several pages' tests)
from support.small import SMALL, WORDS, WarmStart

# Nothing here is timed: a busy machine fails no test.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# Started in the background by a shell, tests inherit that Ctrl-C is ignored, and so would what they start.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)


def shared_data() -> Path:
    """Real data of the environments, which tests use where a machine has them."""
    beside = Path(__file__).parents[1].parent / "shared" / "data"
    return Path(os.environ.get("REPRO_RL_SHARED_DATA", beside))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    with suppress(ModuleNotFoundError):  # the environments of the adapters have no torch
        import torch

        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_registries() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    from repro_rl.config.methods import METHOD_LOSSES, METHODS
    from repro_rl.credit import CREDIT, SOURCES
    from repro_rl.demos import ANNOTATORS
    from repro_rl.envs.base import ENVS
    from repro_rl.losses.named import LOSS_NAMES
    from repro_rl.run.callbacks import CALLBACKS

    registries = (ENVS, CREDIT, SOURCES, LOSS_NAMES, METHODS, METHOD_LOSSES, ANNOTATORS, CALLBACKS)
    with ExitStack() as stack:
        for registry in registries:
            stack.enter_context(registry.isolated())
        yield


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Imported and generated data go to a folder of this test run, shared by its workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "cache"
    os.environ["REPRO_RL_CACHE"] = str(folder)
    os.environ["REPRO_RL_HOME"] = str(folder.with_name("home"))
    return folder


@pytest.fixture(scope="session")
def shared_webshop() -> Path:
    """The real 1,000 products and transcripts of the original program, where this machine has them."""
    folder = shared_data() / "webshop"
    if not (folder / "episodes.jsonl.gz").is_file():
        pytest.skip(
            "the real WebShop data are not here; set REPRO_RL_SHARED_DATA to the folder that has them"
        )
    return folder


@pytest.fixture(scope="session")
def official(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The official ALFWorld training games that this machine has."""
    archive = shared_data() / "alfworld" / "train200.tar.xz"
    if not archive.is_file():
        pytest.skip(
            "official ALFWorld games are not here; set REPRO_RL_SHARED_DATA to the folder that has them"
        )
    folder = tmp_path_factory.mktemp("alfworld")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return sorted(folder.glob("json_2.1.1/train/*/*/game.tw-pddl"))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained tiny model over ``WORDS``."""
    from repro_rl.config import TinySection
    from repro_rl.policy import build_tiny

    size = TinySection(hidden=32, layers=2, heads=2, kv_heads=1, ffn=64, positions=256)
    return build_tiny(tmp_path_factory.mktemp("tiny") / "model", WORDS, size, seed=3)


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> WarmStart:
    from repro_rl import make
    from repro_rl.config import DemosSection, load_config
    from repro_rl.demos import collect_demos, save_demos
    from repro_rl.train import run_warmup
    from support.demos import PLANNED

    folder = tmp_path_factory.mktemp("warm")
    settings = list(SMALL)
    config = load_config(None, settings)
    env = make("sokoban", **config.env.settings)
    section = DemosSection(expert=8, winning=16, failing=48, labelled_mistakes=(0.5, 1.0), **PLANNED)
    experts, labelled = collect_demos(env, env.panel("train").ids, section, seed=0)
    save_demos(folder / "demos", experts, labelled)
    rows: list[dict[str, Any]] = []
    model = run_warmup(config, folder / "demos", folder / "run", on_row=rows.append)
    return WarmStart(settings, folder / "demos", folder / "run", model, rows)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A chat-completions server on this machine, past any proxy."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Server()
    yield running
    running.close()
