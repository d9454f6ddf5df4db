"""Fixtures that cost seconds are built once a session: a tiny model folder and a short warm start."""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

WORDS = (*"abcdefghijklmnop", "left", "right", "up", "down", "act", "progress", *(f"x{i}" for i in range(30)))

ROOMS = (
    "env.settings={style: relative, train_rooms: 16, validation_rooms: 8, test_rooms: 8, solution: [2, 5], "
    "max_steps: 6}"
)
# Whole sections, so that the recipes can change without changing what is tested.
SMALL = [
    ROOMS,
    "policy={model: tiny, device: cpu, tiny: {hidden: 32, heads: 2, kv_heads: 2, ffn: 64, positions: 256}}",
    "prompt={style: compact, resolution: 50, action_tokens: 3, reflect_new_tokens: 34}",
    "warmup={updates: 100, forward_from: 0, forward_batch: 16, reflect_batch: 32, lr: 0.01, lr_end: 1.0}",
    "method=repro",
    "method.judge_pool=none",
    "method.judge_temperature=null",
    "train={epochs: 2, minibatches: 2, lr: 0.001, lr_warmup: 2}",
    "alarms={}",
    "eval={validation_tasks: 8}",
]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Imported and generated data go to a folder of this test run, shared by its workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "cache"
    os.environ["REPRO_RL_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def shared_webshop() -> Path:
    """The real 1,000 products and transcripts of the original program, where this machine has them."""
    beside = Path(__file__).parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("REPRO_RL_SHARED_DATA", beside)) / "webshop"
    if not (folder / "episodes.jsonl.gz").is_file():
        pytest.skip(
            "the real WebShop data are not here; set REPRO_RL_SHARED_DATA to the folder that has them"
        )
    return folder


@pytest.fixture(scope="session")
def official(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The official ALFWorld training games that this machine has."""
    beside = Path(__file__).parents[1].parent / "shared" / "data"
    archive = Path(os.environ.get("REPRO_RL_SHARED_DATA", beside)) / "alfworld" / "train200.tar.xz"
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
    from repro_rl.policy import build_tiny
    from repro_rl.policy.tiny import TinySize

    size = TinySize(hidden=32, layers=2, heads=2, kv_heads=1, ffn=64, positions=256)
    return build_tiny(tmp_path_factory.mktemp("tiny") / "model", WORDS, size, seed=3)


@dataclass
class WarmStart:
    """A short warm start on 16 easy rooms: it acts badly, and most of its reflections can be read."""

    settings: list[str]  # overrides for load_config; methods and sizes are added to them
    demos: Path
    run: Path
    model: Path
    rows: list[dict[str, Any]]


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> WarmStart:
    from repro_rl import make
    from repro_rl.config import load_config
    from repro_rl.demos import collect_demos, save_demos
    from repro_rl.train.warmup import run_warmup

    folder = tmp_path_factory.mktemp("warm")
    settings = list(SMALL)
    config = load_config(None, settings)
    env = make("sokoban", **config.env.settings)
    experts, labelled = collect_demos(
        env,
        env.panel("train").ids,
        expert=8,
        winning=16,
        failing=48,
        noise=(0.5, 1.0),
        annotator="oracle",
        seed=0,
    )
    save_demos(folder / "demos", experts, labelled)
    rows: list[dict[str, Any]] = []
    model = run_warmup(config, folder / "demos", folder / "run", on_row=rows.append)
    return WarmStart(settings, folder / "demos", folder / "run", model, rows)
