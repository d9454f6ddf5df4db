"""Accuracy of whole actions, episodes held out, and branches as parts of one token tree."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from repro_rl.config import load_config
from repro_rl.demos import collect_demos, save_demos
from repro_rl.envs.base import make
from repro_rl.errors import PreflightError
from repro_rl.rollout.samples import target_sample
from repro_rl.train import run_warmup
from repro_rl.train.batch import Collation, TreeInputs, single_row
from repro_rl.train.imitation import accuracies, evenly_spread, hold_out, part_counts, with_branches
from repro_rl.train.loss import imitation_loss, imitation_terms
from repro_rl.types import AnswerPart, Branch, Piece, TokenKind
from support.episodes import hand_episode
from support.models import network
from support.small import SMALL

ACT, CONTEXT = TokenKind.ACT, TokenKind.CONTEXT
RNG = np.random.default_rng(0)
PADDED = Collation(0, torch.device("cpu"))
TREE = Collation(0, torch.device("cpu"), as_tree=True)


def conversation():
    """Two answers, the second a mistake with a branch."""
    pieces = [
        Piece((1, 2, 3), CONTEXT),
        Piece((4,), ACT, AnswerPart.PROGRESS),
        Piece((5, 6), ACT, AnswerPart.ACTION),
        Piece((7, 8), CONTEXT),
        Piece((9,), ACT, AnswerPart.PROGRESS),
        Piece((10, 6), CONTEXT),
        Piece((11,), CONTEXT),
    ]
    other = Branch(8, (Piece((9,), CONTEXT), Piece((12, 6), ACT, AnswerPart.ACTION)))
    return target_sample(pieces, [other])


def test_codes_by_hand():
    sample = conversation()
    progress, action = AnswerPart.PROGRESS, AnswerPart.ACTION
    first, second, third = 4 * 2 + progress, 4 * 3 + action, 4 * 5 + progress
    assert sample.parts.tolist() == [0, 0, 0, first, second, second, 0, 0, third, 0, 0, 0]


def test_counts_by_hand():
    """A part is right when all its tokens are."""
    parts = np.array([9, 14, 14, 21, 26, 26, 0])  # progress, action, progress, action, another token
    right = np.array([True, True, False, True, True, True, False])
    counts = part_counts(parts, right)
    assert counts == {"action": 2, "action_right": 1, "progress": 2, "progress_right": 2}
    assert accuracies(counts) == {"action_accuracy": 0.5, "progress_accuracy": 1.0}
    assert accuracies({"action": 0.0, "action_right": 0.0}) == {}


@pytest.mark.parametrize("collation", [PADDED, TREE])
def test_rows_of_a_batch_count_apart(collation):
    rows = [single_row(sample) for sample in with_branches([conversation(), conversation()], 4, RNG)]
    batch = collation.collate(rows, {ACT: 1.0})
    assert isinstance(batch.inputs, TreeInputs) == collation.as_tree
    right = np.ones(len(batch.targets.token), dtype=bool)
    assert part_counts(batch.parts, right) == {
        "action": 4,
        "action_right": 4,
        "progress": 4,
        "progress_right": 4,
    }
    # the last token of the first row's action
    right[2] = False
    assert part_counts(batch.parts, right)["action_right"] == 3


def test_right_tokens_are_the_most_probable_ones():
    model = network(seed=0)
    rows = [single_row(sample) for sample in with_branches([conversation()], 4, RNG)]
    results = []
    for collation in (PADDED, TREE):
        batch = collation.collate(rows, {ACT: 1.0})
        terms, right = imitation_terms(model, batch)
        loss = terms.sum()
        assert loss.item() == pytest.approx(imitation_loss(model, batch).item())
        results.append((loss.item(), right.tolist()))
    assert results[0][1] == results[1][1]
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    by_hand = []
    for row in rows:
        logits = model(input_ids=torch.from_numpy(row.ids)[None]).logits[0]
        by_hand += [int(logits[t - 1].argmax()) == int(row.ids[t]) for t in np.flatnonzero(row.trained)]
    assert results[0][1] == by_hand


def test_branches_stand_behind_their_sample():
    rows = with_branches([conversation()], 4, RNG)
    assert [row.ids.tolist() for row in rows] == [
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 6, 11],
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 6],
    ]
    assert [row.ids[row.trained].tolist() for row in rows] == [[4, 5, 6, 9], [12, 6]]
    assert len(with_branches([conversation()], 0, RNG)) == 1


def test_some_of_many_branches_are_drawn():
    sample = conversation()
    many = replace(sample, branches=sample.branches * 6)
    assert len(with_branches([many], 4, RNG)) == 1 + 4
    # one that trains nothing itself, as a wandering episode without progress, gives its branches alone
    silent = replace(many, kind=np.zeros_like(many.kind))
    assert [row.ids[row.trained].tolist() for row in with_branches([silent], 2, RNG)] == [[12, 6]] * 2


def test_tasks_are_held_out_whole():
    episodes = [hand_episode([], task_id=f"t{n % 5}") for n in range(12)]  # t0, t1 three times, others two
    trained, held = hold_out(episodes, 3)
    assert len(held) >= 3
    assert not {t.task_id for t in trained} & {t.task_id for t in held}
    assert Counter(t.task_id for t in (*trained, *held)) == Counter(t.task_id for t in episodes)
    assert hold_out(episodes, 0) == (episodes, [])
    with pytest.raises(PreflightError, match=r"warmup\.held_out is 12, but there are 12 episodes of 5 tasks"):
        hold_out(episodes, 12)


def test_evenly_spread():
    assert evenly_spread(8) == [0, 4, 2, 6, 1, 5, 3, 7]
    assert evenly_spread(5) == [0, 4, 2, 1, 3]
    assert [evenly_spread(n) for n in (0, 1, 2)] == [[], [0], [0, 1]]


@pytest.mark.parametrize("context", ["window", "chat"])
def test_a_warmup_reports_accuracy(tmp_path, context):
    """With mistakes in the demonstrations, on those that are trained and on those that are held out."""
    config = load_config(
        None,
        [
            *SMALL,
            f"prompt.context={context}",
            "demos={expert: 8, mistakes: [0.0, 0.3], wandering: 0.25, winning: 4, failing: 4}",
            "warmup={updates: 30, forward_from: 2, forward_batch: 8, reflect_batch: 4, lr: 0.01, "
            "held_out: 2, save_every: 15}",
        ],
    )
    env = make("sokoban", **config.env.settings)
    save_demos(tmp_path / "demos", *collect_demos(env, env.panel("train").ids, config.demos, seed=0))
    rows = []
    run_warmup(config, tmp_path / "demos", tmp_path / "run", rows.append)
    assert "warmup/action_accuracy" not in rows[1]  # reflections alone
    for name in ("warmup/action_accuracy", "warmup/progress_accuracy"):
        assert all(0 <= row[name] <= 1 for row in rows[2:])
    measured = [row["iteration"] for row in rows if "warmup/held_out_action_accuracy" in row]
    assert measured == [15, 30]
    assert rows[29]["warmup/held_out_loss"] < rows[14]["warmup/held_out_loss"]
    written = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(written[-1]) == rows[-1]
