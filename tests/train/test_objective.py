"""Every policy loss on merged rows gives the gradient of all copies; aggregation; self-distillation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from repro_rl.config import KlSection
from repro_rl.losses import LOSSES, LossTokens
from repro_rl.losses.aggregation import token_weight
from repro_rl.losses.settings import DistillSection, LossSection
from repro_rl.train.batch import Collation, merge, taught_tokens
from repro_rl.train.loss import LossSettings, policy_loss
from repro_rl.train.objective import policy_gain
from repro_rl.types import Sample, TokenKind
from support.toy import CPU, gradient, grouped_samples, logp_of, sample_of, updater

NO_KL = KlSection(form="none")


def one_by_one(model, samples: list[Sample], section: LossSection, weight) -> torch.Tensor:
    """The loss of every sample apart; ``weight``: of a token, by the tokens of its row."""
    how = section.values()
    total = torch.zeros(())
    for sample in samples:
        at = np.flatnonzero(sample.trained)
        logp = logp_of(model, sample.ids)[at - 1, sample.ids[at]]
        tokens = LossTokens(
            logp,
            torch.tensor(sample.logprob[at]),
            torch.tensor(sample.advantage[at]),
            torch.zeros(len(at), dtype=torch.int64),
        )
        total = total + (LOSSES[section.name].loss(tokens, **how) * weight(len(at))).sum()
    return total


def merged_loss(
    model, samples: list[Sample], section: LossSection, scale, cells: int = 10**6
) -> torch.Tensor:
    collation, settings = Collation(0, CPU), LossSettings(0.2, NO_KL, 0.0, 1.0, section)
    rows = merge(samples)
    assert len(rows) < len(samples)
    return sum(
        policy_loss(
            model, collation.collate(chunk, {TokenKind.ACT: scale, TokenKind.REFLECT: scale}), settings
        ).total
        for chunk in collation.split(rows, cells)
    )


SECTIONS = (
    LossSection(clip_low=0.1, clip_high=0.3, dual_clip=1.5),
    *(LossSection(name=name) for name in ("cispo", "gspo", "sapo", "dppo_tv", "dppo_kl")),
    LossSection(name="gspo", clip_low=0.2, clip_high=0.28),
)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
@pytest.mark.parametrize("cells", [10**6, 12])
def test_merged_rows_give_the_gradient_of_all_copies(section: LossSection, cells: int) -> None:
    model, samples = grouped_samples(seed=1)[:2]
    want = one_by_one(model, samples, section, lambda k: 0.01)
    got = merged_loss(model, samples, section, 0.01, cells)
    assert float(got.detach()) == pytest.approx(float(want.detach()), rel=1e-4, abs=1e-5)
    np.testing.assert_allclose(gradient(model, got), gradient(model, want), rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("mode", "scale"),
    [
        ("seq-mean-token-mean", None),
        ("seq-mean-token-sum", None),
        ("seq-mean-token-sum-norm", 7.0),
        ("token-sum", None),
    ],
)
def test_rows_are_weighed_over_the_whole_mini_batch(mode: str, scale: float | None) -> None:
    """Copies of a row count, micro-batches do not."""
    model, samples = grouped_samples(seed=2)[:2]
    samples = [sample for sample in samples if TokenKind.ACT in sample.kind]
    section = LossSection(aggregation=mode, scale=scale)
    weight = token_weight(mode, tokens=0, rows=len(samples), scale=scale)
    want = one_by_one(model, samples, LossSection(clip_low=0.2, clip_high=0.2), weight)
    trainer = updater(loss=section)
    rows = merge(samples)
    got = merged_loss(model, samples, section, trainer._answer_scale(rows), cells=12)
    assert float(got.detach()) == pytest.approx(float(want.detach()), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("mode", "scale", "answers"),
    [
        ("token-mean", None, 1.0),
        ("seq-mean-token-mean", None, 1.0),
        ("seq-mean-token-sum", None, 4.0),
        ("seq-mean-token-sum-norm", 4.0, 1.0),
        ("token-sum", None, 32.0),
    ],
)
@pytest.mark.parametrize("coef", [1.0, 0.1])
def test_reflections_weigh_their_coefficient_whatever_the_aggregation(
    mode: str, scale: float | None, answers: float, coef: float
) -> None:
    """8 answers of 4 tokens and 8 reflections of 44: as rows or sums, those would weigh 11 times as much."""
    samples = [sample_of(list(range(1, 6)), 1, float(i), -1.0) for i in range(8)]
    for i in range(8):
        sample = sample_of([1 + j % 6 for j in range(45)], 1, float(i), -1.0)
        sample.kind = np.where(sample.trained, TokenKind.REFLECT, sample.kind).astype(sample.kind.dtype)
        samples.append(sample)
    trainer = updater(loss=LossSection(aggregation=mode, scale=scale))
    trainer.reflect_coef = coef

    def weight(part: list[Sample]) -> float:
        batches = trainer._batches(merge(part), Collation(0, CPU))
        return sum(float((b.targets.scale * b.targets.weight).sum()) for b in batches)

    assert weight(samples[:8]) == pytest.approx(answers, rel=1e-5)
    assert weight(samples[8:]) == pytest.approx(coef, rel=1e-5)
    assert weight(samples) == pytest.approx(answers + coef, rel=1e-5)


def taught(ids, teacher, advantage=0.0) -> Sample:
    sample = sample_of(ids, 2, advantage, -1.0)
    if teacher is not None:
        sample.teacher = np.array([np.nan, np.nan, *teacher], np.float32)
    return sample


def test_copies_with_one_teacher_are_one_row_and_others_are_not() -> None:
    samples = [taught([1, 2, 3], t) for t in ([-0.5], [-0.5], [-0.7], None)]
    rows = merge(samples)
    assert [row.count for row in rows] == [2, 1, 1]
    assert taught_tokens(rows) == 3


@pytest.mark.parametrize("form", ["gated", "delta", "importance"])
def test_self_distillation_counts_copies_and_leaves_out_rows_without_a_teacher(form: str) -> None:
    model = grouped_samples()[0]
    samples = [taught([1, 2, 3], [-0.5]), taught([1, 2, 3], [-0.5]), taught([2, 1, 3, 4], [-3.0, -0.1]), taught([3, 3, 1], None)]  # fmt: skip  # noqa: E501
    rows = merge(samples)
    settings = LossSettings(0.2, NO_KL, 0.0, 1.0, distill=DistillSection(coef=0.5, form=form))
    batch = replace(
        Collation(0, CPU).collate(rows, {TokenKind.ACT: 1.0}), distill_scale=1 / taught_tokens(rows)
    )
    terms = policy_loss(model, batch, settings)
    want = torch.zeros(())
    for sample in samples[:3]:
        for at in np.flatnonzero(sample.trained):
            logp = logp_of(model, sample.ids)[at - 1, sample.ids[at]]
            teacher, old = float(sample.teacher[at]), float(sample.logprob[at])
            if form == "gated":
                gap = teacher - logp
                want = want + torch.sigmoid(5 * gap).detach() * gap
            elif form == "delta":
                want = want - (teacher - old) * logp
            else:
                want = want - (teacher - old) * (logp - old).exp()
    assert terms.taught == 4
    assert terms.distill == pytest.approx(float(want.detach()), rel=1e-4)
    assert float(terms.total.detach()) == pytest.approx(0.5 * float(want.detach()) / 4, rel=1e-4), (
        "the advantages are 0"
    )
    np.testing.assert_allclose(
        gradient(model, terms.total), gradient(model, 0.5 * want / 4), rtol=1e-4, atol=1e-6
    )


def test_ppo_s_bounds_and_an_improbable_token_of_the_sampler() -> None:
    """Log-prob -200 of the sampler: the ratio is bounded as in ``losses``, never infinite times 0."""
    rows = merge([sample_of([1, 2], 1, advantage, -200.0) for advantage in (1.0, 1.0)])
    targets = Collation(0, CPU).collate(rows, {TokenKind.ACT: 1.0}).targets
    gain, clipped = policy_gain(torch.tensor([-1.0]), targets, 0.2, LossSection())
    assert gain.tolist() == pytest.approx([1.2 * 2])
    assert clipped.tolist() == [2]
    down = replace(targets, positive=torch.zeros(1), negative=torch.tensor([-2.0]))
    down = replace(down, n_positive=torch.zeros(1), n_negative=torch.tensor([2.0]))
    gain, clipped = policy_gain(torch.tensor([-199.0]), down, 0.2, LossSection(dual_clip=2.0))
    assert gain.tolist() == pytest.approx([-2.0 * 2])
    assert clipped.tolist() == [2]


@pytest.mark.parametrize(
    ("name", "ratio", "expected"),
    [
        ("ppo_clip", 1.5, 1),  # above the range only the copy with a positive advantage is bounded
        ("ppo_clip", 0.5, 3),
        ("ppo_clip", 1.0, 0),
        ("gspo", 1.5, 1),
        ("cispo", 1.5, 4),  # its ratio is bounded whatever the sign
        ("sapo", 1.5, 0),
        ("dppo_tv", 1.5, 1),
    ],
)
def test_copies_are_clipped_by_the_sign_of_their_own_advantage(
    name: str, ratio: float, expected: int
) -> None:
    """Five equal samples with advantages 1, -1, -1, -1 and 0; merged they count as each alone would."""
    chosen = torch.tensor([-1.0])
    old = float(chosen) - math.log(ratio)
    bounds = {} if name == "sapo" else {"clip_low": 0.1, "clip_high": 0.1}
    section = LossSection.model_validate({"name": name, **bounds})
    samples = [sample_of([1, 2], 1, advantage, old) for advantage in (1.0, -1.0, -1.0, -1.0, 0.0)]

    def clipped(part: list[Sample]) -> float:
        targets = Collation(0, CPU).collate(merge(part), {TokenKind.ACT: 1.0}).targets
        return float(policy_gain(chosen, targets, 0.1, section)[1])

    assert clipped(samples) == expected
    assert sum(clipped([sample]) for sample in samples) == expected


def test_a_teacher_travels_between_processes() -> None:
    from repro_rl.train.rank_rows import pack, unpack

    for sample in (taught([1, 2, 3], [-0.5]), taught([1, 2, 3], None)):
        (row,) = merge([sample])
        back = unpack(pack(row))
        if sample.teacher is None:
            assert back.teacher is None
        else:
            assert back.teacher is not None
            assert back.teacher[2] == np.float32(-0.5)
