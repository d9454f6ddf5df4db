"""Do the gains of a progress series point where the step advantages point?

The paper reports 91.5 % for retrospective gains against step advantages. An advantage that was computed from
a reward with shaping *contains* the gain, so such a figure is partly circular. Hence four references, apart
(decision D48).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from repro_rl.credit.gigpo import gigpo_advantages
from repro_rl.study.recorded import RecordedEpisode
from repro_rl.study.resample import Resampler, interval, ratio
from repro_rl.study.series import gains_of

REFERENCES = ("trained", "composite", "outcome", "truth")
SAME = 1e-9  # an advantage this small is rounding: below it there is no sign
Rows = list[list[float | None]]

_SIGNS = ("++", "+-", "-+", "--")  # of gain and reference


def references(episodes: Sequence[RecordedEpisode], gamma: float) -> dict[str, Rows]:
    """The step values whose sign is compared, each [E] lists of T, None where there is none.

    - trained: the advantage that the step's tokens were trained with; contains the gain, and the episode part
    - composite: GiGPO's step part, from the recorded reward with all its terms; contains the gain
    - outcome: the same from the environment's reward alone; knows nothing of the gain
    - truth: the gain of the true progress
    """
    return {
        "trained": [[None] * len(e.env) if e.advantage is None else [*e.advantage] for e in episodes],
        "composite": _step_part(episodes, [episode.composite for episode in episodes], gamma),
        "outcome": _step_part(episodes, [episode.env for episode in episodes], gamma),
        "truth": [gains_of(episode.series["truth"].series) for episode in episodes],
    }


def _step_part(
    episodes: Sequence[RecordedEpisode], rewards: Sequence[list[float] | None], gamma: float
) -> Rows:
    """A_step of every step: the return-to-go against all steps of the same group and state; 0 when alone.

    None where there are no rewards, or where the group has no other episode with rewards. There only an
    episode's own returns to a state would be compared.
    """
    size = Counter(e.group for e, row in zip(episodes, rewards, strict=True) if row is not None)
    comparable = [
        (index, episode, row)
        for index, (episode, row) in enumerate(zip(episodes, rewards, strict=True))
        if row is not None and size[episode.group] > 1
    ]
    advantages = gigpo_advantages(
        [row for _, _, row in comparable],
        [episode.group for _, episode, _ in comparable],
        [episode.anchors for _, episode, _ in comparable],
        gamma=gamma,
        omega=1.0,
        episode_returns=[0.0] * len(comparable),  # leaves the step part alone
    )
    result: Rows = [[None] * len(episode.env) for episode in episodes]
    for (index, _, _), values in zip(comparable, advantages, strict=True):
        result[index] = [*values]
    return result


def agreement(
    episodes: Sequence[RecordedEpisode],
    which: str,
    reference: Rows,
    sampler: Resampler,
    *,
    before_end: bool = False,
) -> dict[str, Any] | None:
    """How often the gains of ``which`` have the sign of ``reference``. None when no step has both.

    ``steps``: steps with both; ``flat``: of those, the gain is 0; ``silent``: the gain is not 0, but the
    reference is (a state seen once, or equal returns). Neither agrees nor disagrees; they are counted apart.
    ``share``: agreeing of the ``compared`` rest, with interval. ``chance``: what independent signs with these
    shares of + would give. ``kappa``: (share - chance) / (1 - chance) (Cohen 1960). ``before_end`` leaves
    each episode's last step out: there the outcome gives both signs away.
    """
    columns: dict[str, list[float]] = {
        name: [0.0] * len(episodes) for name in ("steps", "flat", "silent", *_SIGNS)
    }
    for index, (episode, values) in enumerate(zip(episodes, reference, strict=True)):
        pairs = list(zip(gains_of(episode.series[which].series), values, strict=True))
        for gain, value in pairs[:-1] if before_end else pairs:
            if gain is not None and value is not None:
                columns["steps"][index] += 1
                columns[_kind(gain, value)][index] += 1
    totals = sampler.totals(columns)
    if not totals["steps"][0]:
        return None
    agree, compared = totals["++"] + totals["--"], np.sum([totals[name] for name in _SIGNS], axis=0)
    share = ratio(agree, compared)
    up, positive = ratio(totals["++"] + totals["+-"], compared), ratio(totals["++"] + totals["-+"], compared)
    chance = up * positive + (1 - up) * (1 - positive)
    return {
        **{name: int(totals[name][0]) for name in ("steps", "flat", "silent")},
        "compared": int(compared[0]),
        "agree": int(agree[0]),
        "share": interval(share),
        "chance": interval(chance)["value"],
        "kappa": interval(ratio(share - chance, 1 - chance)),
    }


def _kind(gain: float, value: float) -> str:
    """Where a step is counted: no gain, no sign of the reference, or the two signs."""
    if gain == 0:
        return "flat"
    if abs(value) <= SAME:
        return "silent"
    return ("+" if gain > 0 else "-") + ("+" if value > 0 else "-")
