"""Settings of the experiment trackers that a training run reports to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from repro_rl.settings import Section

TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]


class TrackingSection(Section):
    """What ``train.trackers`` are told about a run, and where they keep it."""

    project: str = Field(
        "repro-rl", min_length=1, description="project of wandb and trackio, experiment of mlflow"
    )
    name: str | None = Field(
        None, min_length=1, description="name of the run there  [default: the end of the run folder's path]"
    )
    offline: bool = Field(
        False, description="wandb writes into the run folder only (wandb sync sends it later)"
    )
    address: str | None = Field(
        None,
        description="mlflow: address or database of its server  [default: MLFLOW_TRACKING_URI, else mlflow's "
        "own]",
    )
    episodes: int = Field(4, ge=0, description="sample episodes in a table; 0: no tables")
    episodes_every: int = Field(
        10, gt=0, description="iterations between two tables; only recorded ones (train.record_every)"
    )
