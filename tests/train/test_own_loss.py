"""A policy loss of a user's own trains like one of the package, and a run finds it again by its plug-in."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from repro_rl.config import load_config, load_run_config
from repro_rl.errors import ConfigError
from repro_rl.losses import LOSS_NAMES
from repro_rl.run.setup import set_up
from repro_rl.train import RLRun

MODULE = """
from repro_rl import register_loss

def outside(tokens, *, clip_low=10.0, clip_high=0.2):
    ratio = tokens.ratio
    return ((ratio > 1 + clip_high) | (ratio < 1 - clip_low)) & (tokens.advantages != 0)

@register_loss("my-cispo", clipped=outside)
def my_cispo(tokens, *, clip_low=10.0, clip_high=0.2):
    weight = tokens.ratio.detach().clamp(1 - clip_low, 1 + clip_high)
    return -weight * tokens.advantages * tokens.log_prob
"""
SETTINGS = (
    *(
        "train.groups=4",
        "train.group_size=3",
        "train.minibatches=2",
        "train.validate_every=0",
        "train.epochs=2",
    ),
    *("method=gigpo", "train.lr=0.01", "train.lr_warmup=0", "train.record_every=0"),
)


def trained(warm, folder, *loss: str) -> tuple[list[np.ndarray], dict[str, float]]:
    """The weights after an iteration, and its metrics but for the times."""
    config = load_config(None, [*warm.settings, *SETTINGS, f"train.init={warm.model}", *loss])
    run = RLRun(set_up(config), folder)
    row = run.step()
    weights = [parameter.detach().numpy().copy() for parameter in run.policy.model.parameters()]
    return weights, {name: value for name, value in row.items() if "time/" not in name and name != "seconds"}


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    (tmp_path / "my_losses.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "plugins=[my_losses]"
    sys.modules.pop("my_losses", None)


def test_a_copy_of_cispo_trains_to_the_same_bits_and_the_run_finds_it_again(warm, tmp_path, plugin) -> None:
    bounds = "train.loss.clip_high=0.05"
    shipped = trained(warm, tmp_path / "shipped", "train.loss.name=cispo", bounds)
    own = trained(warm, tmp_path / "own", plugin, "train.loss.name=my-cispo", bounds)
    assert own[1] == shipped[1]
    assert own[1]["update/clip_fraction"] > 0
    assert all(np.array_equal(a, b) for a, b in zip(own[0], shipped[0], strict=True))

    sys.modules.pop("my_losses")
    with LOSS_NAMES.isolated():
        LOSS_NAMES._items.pop("my-cispo")  # as in a new process
        with pytest.raises(ConfigError, match=r"Unknown policy loss 'my-cispo'.*plugins=\[MODULE\]"):
            load_config(tmp_path / "own" / "config.yaml", ["plugins=[]"])
        again = load_run_config(tmp_path / "own").train.loss
        assert (again.name, again.values()) == ("my-cispo", {"clip_low": 10.0, "clip_high": 0.05})
