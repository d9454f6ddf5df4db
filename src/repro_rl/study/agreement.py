"""Do the gains of a progress series point where the step advantages point?

The paper reports 91.5 % for retrospective gains against step advantages. An advantage that was computed from
a reward with shaping *contains* the gain, so such a figure is partly circular. Hence four references, apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from repro_rl.credit.gigpo import gigpo_advantages
from repro_rl.study.judged import Judged
from repro_rl.study.progress import gains_of
from repro_rl.study.resample import Resampler, interval, ratio

REFERENCES = ("trained", "composite", "outcome", "truth")
SAME = 1e-9  # an advantage this small is rounding: below it there is no sign
Rows = list[list[float | None]]


def references(episodes: Sequence[Judged], gamma: float) -> dict[str, Rows]:
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


def _step_part(episodes: Sequence[Judged], rewards: Sequence[list[float] | None], gamma: float) -> Rows:
    """A_step of every step: the return-to-go against all steps of the same group and state; 0 when alone.

    None where there are no rewards, or where no other episode of the group is known: there only an episode's
    own returns to a state would be compared.
    """
    size = Counter(e.group for e, row in zip(episodes, rewards, strict=True) if row is not None)
    known = [
        (place, episode, row)
        for place, (episode, row) in enumerate(zip(episodes, rewards, strict=True))
        if row is not None and size[episode.group] > 1
    ]
    found = gigpo_advantages(
        [row for _, _, row in known],
        [episode.group for _, episode, _ in known],
        [episode.anchors for _, episode, _ in known],
        gamma=gamma,
        omega=1.0,
        episode_returns=[0.0] * len(known),  # leaves the step part alone
    )
    result: Rows = [[None] * len(episode.env) for episode in episodes]
    for (place, _, _), values in zip(known, found, strict=True):
        result[place] = [*values]
    return result


def agreement(
    episodes: Sequence[Judged], which: str, reference: Rows, sampler: Resampler, *, before_end: bool = False
) -> dict[str, Any] | None:
    """How often the gains of ``which`` have the sign of ``reference``. None when no step has both.

    ``steps``: steps with both; ``flat``: of those, the gain is 0; ``silent``: the gain is not 0, but the
    reference is (a state seen once, or equal returns). Neither agrees nor disagrees; they are counted apart.
    ``share``: agreeing of the ``compared`` rest, with interval. ``chance``: what independent signs with these
    shares of + would give. ``kappa``: (share - chance) / (1 - chance) (Cohen 1960). ``before_end`` leaves
    each episode's last step out: there the outcome gives both signs away.
    """
    names = ("steps", "flat", "silent", "++", "+-", "-+", "--")
    columns: dict[str, list[float]] = {name: [0.0] * len(episodes) for name in names}
    for place, (episode, values) in enumerate(zip(episodes, reference, strict=True)):
        pairs = list(zip(gains_of(episode.series[which].series), values, strict=True))
        for gain, value in pairs[:-1] if before_end else pairs:
            if gain is None or value is None:
                continue
            columns["steps"][place] += 1
            if gain == 0:
                columns["flat"][place] += 1
            elif abs(value) <= SAME:
                columns["silent"][place] += 1
            else:
                columns[("+" if gain > 0 else "-") + ("+" if value > 0 else "-")][place] += 1
    totals = sampler.totals(columns)
    count = {name: int(totals[name][0]) for name in names}
    if not count["steps"]:
        return None
    both, compared = totals["++"] + totals["--"], np.sum([totals[name] for name in names[3:]], axis=0)
    share = ratio(both, compared)
    up, positive = ratio(totals["++"] + totals["+-"], compared), ratio(totals["++"] + totals["-+"], compared)
    chance = up * positive + (1 - up) * (1 - positive)
    return {
        "steps": count["steps"],
        "flat": count["flat"],
        "silent": count["silent"],
        "compared": int(compared[0]),
        "agree": int(both[0]),
        "share": interval(share),
        "chance": interval(chance)["value"],
        "kappa": interval(ratio(share - chance, 1 - chance)),
    }
