"""The judge's pay, weighed by its agreement with the outcomes. Decision D77; not in the paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repro_rl.credit.group_sources import graph_progress
from repro_rl.credit.pool import judged_series
from repro_rl.credit.settings import RewardSettings
from repro_rl.credit.sources import has_win
from repro_rl.types import Group


def judge_agreement(groups: Sequence[Group], settings: RewardSettings) -> float | None:
    """Pearson correlation of the judge's gains with the state graph's, over the iteration; needs no truth.

    Read are the steps of completed trajectories with a valid reflection, in groups that hold a win. There the
    graph of the rollouts (``graph_progress``) says how much nearer to success each step came.
    Counted are gains ``P_t - P_(t-1)``, not values, because gains are what is paid. None where no step is
    counted, or where one of both never changes.
    """
    judged: list[float] = []
    known: list[float] = []
    for group in groups:
        if not has_win(group.trajectories):
            continue
        for own, graph in zip(judged_series(group, settings), graph_progress(group, settings), strict=True):
            if own is not None and graph is not None:
                judged += np.diff(own).tolist()
                known += np.diff([0.0, *graph]).tolist()
    if len(judged) < 2 or np.ptp(judged) == 0 or np.ptp(known) == 0:
        return None
    return float(np.corrcoef(judged, known)[0, 1])


def gate(agreement: float | None) -> float:
    """The weight 0..1 of the judge's gains: its agreement, at least 0; 1 where nothing could be measured."""
    return 1.0 if agreement is None else max(0.0, agreement)
