"""The sampler's log-probs against the trainer's, with numbers worked by hand."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from repro_rl.losses.settings import LossSection
from repro_rl.train.batch import Collation, merge
from repro_rl.train.mismatch import (
    Correction,
    MismatchSums,
    build_correction,
    importance_weights,
    needs_own_logprobs,
)
from support.toy import SCALES, Toy, on_policy, updater

TRAINER = torch.tensor([[0.25, 0.5, 0.9]]).log()
SAMPLER = torch.tensor([[0.5, 0.25, 0.1]]).log()
LOG2 = math.log(2)


def test_figures_by_hand():
    sums = MismatchSums()
    sums.add(TRAINER, SAMPLER, torch.tensor([[1.0, 1.0, 0.0]]), cap=1.5)  # the last token is not trained
    row = sums.row()
    # r = 1/2 and 2.
    assert row["update/mismatch"] == pytest.approx(LOG2)
    assert row["update/mismatch_max"] == pytest.approx(LOG2)
    # (1/2 - 1 + log 2) and (2 - 1 - log 2): their mean is 1/4.
    assert row["update/mismatch_kl"] == pytest.approx(0.25)
    assert row["update/importance_mean"] == pytest.approx(1.25)
    assert (row["update/importance_min"], row["update/importance_max"]) == pytest.approx((0.5, 2.0))
    # (1/2 + 2)^2 / (2 * (1/4 + 4)) = 6.25 / 8.5
    assert row["update/importance_ess"] == pytest.approx(6.25 / 8.5)
    assert row["update/importance_capped"] == 0.5


def test_a_row_counts_as_often_as_it_was_sampled():
    sums = MismatchSums()
    sums.add(TRAINER, SAMPLER, torch.tensor([[3.0, 1.0, 0.0]]), cap=None)
    row = sums.row()
    assert row["update/importance_mean"] == pytest.approx((3 * 0.5 + 2) / 4)
    assert row["update/importance_ess"] == pytest.approx(3.5**2 / (4 * (3 * 0.25 + 4)))
    assert row["update/importance_capped"] == 0
    sums.add(TRAINER, SAMPLER, torch.tensor([[0.0, 4.0, 0.0]]), cap=None)  # sums go on over batches
    assert sums.row()["update/importance_mean"] == pytest.approx((3 * 0.5 + 5 * 2) / 8)


def test_equal_log_probs_need_no_correction():
    sums = MismatchSums()
    sums.add(TRAINER, TRAINER, torch.ones(1, 3), cap=2.0)
    assert sums.row() == {
        "update/mismatch": 0,
        "update/mismatch_max": 0,
        "update/mismatch_kl": 0,
        "update/importance_mean": 1,
        "update/importance_max": 1,
        "update/importance_min": 1,
        "update/importance_ess": 1,
        "update/importance_capped": 0,
    }
    assert all(math.isfinite(value) for value in MismatchSums().row().values())


def test_the_kl_estimate_is_unbiased():
    """Its mean over the sampler's draws is the sum over the vocabulary."""
    sampler, trainer = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.5, 0.2, 0.3])
    sums = MismatchSums()
    sums.add(trainer.log()[None], sampler.log()[None], sampler[None] * 1000, cap=None)
    exact = float((sampler * (sampler / trainer).log()).sum())
    assert sums.row()["update/mismatch_kl"] == pytest.approx(exact, abs=1e-6)
    assert sums.row()["update/importance_mean"] == pytest.approx(1, abs=1e-6)


def test_weights_by_hand():
    weights = importance_weights(TRAINER, SAMPLER, cap=1.5)
    torch.testing.assert_close(weights, torch.tensor([[0.5, 1.5, 1.5]]))
    assert torch.isfinite(importance_weights(torch.tensor(0.0), torch.tensor(-1e4), cap=1e30))


def test_what_the_setting_means():
    assert build_correction("auto", "transformers") is None
    assert build_correction("off", "transformers") is None
    assert build_correction("auto", "vllm") == Correction(2.0)
    assert build_correction("auto", "vllm-server") == Correction(2.0)
    assert build_correction("off", "vllm") == Correction(None)  # compared, not corrected
    assert build_correction(3, "transformers") == Correction(3.0)


def shifted(samples, by):
    """The same samples, as if a sampler had reported log-probs lower by ``by`` on every trained token."""
    return [replace(s, logprob=np.where(s.trained, s.logprob - by, 0).astype(np.float32)) for s in samples]


def test_corrected_batches_are_copies():
    model = Toy(0)
    rows = merge(shifted(on_policy(model), math.log(4)))  # r = 4 on every token
    batch = Collation(0, torch.device("cpu")).collate(rows, SCALES)
    before = {name: getattr(batch.targets, name).clone() for name in ("positive", "negative", "logprob")}
    parts, _ = Correction(None).apply(model, [[batch]], 1.0, nullcontext)
    assert parts == [[batch]]  # compared, not corrected
    [[corrected]], figures = Correction(2.0).apply(model, [[batch]], 1.0, nullcontext)
    assert figures["update/mismatch"] == pytest.approx(math.log(4), abs=1e-5)
    assert figures["update/importance_capped"] == 1
    torch.testing.assert_close(corrected.targets.positive, 2 * before["positive"])
    torch.testing.assert_close(corrected.targets.negative, 2 * before["negative"])
    torch.testing.assert_close(corrected.targets.logprob, before["logprob"] + math.log(4))
    assert corrected.inputs is batch.inputs
    for name, value in before.items():
        assert torch.equal(getattr(batch.targets, name), value)


def trained_by(correction, samples):
    up = updater()
    up.correction = correction
    row = up.update(samples, groups=4, iteration=1, seed=0)
    return {name: p.detach().clone() for name, p in up.trained.model.named_parameters()}, row


@pytest.mark.parametrize(("ratio", "weight"), [(1.5, 1.5), (0.5, 0.5), (8.0, 2.0)])
def test_an_update_weighs_the_advantages(ratio, weight):
    """Truncated importance sampling is on-policy training with advantages times min(r, C)."""
    samples = on_policy(Toy(0))
    corrected, row = trained_by(Correction(2.0), shifted(samples, math.log(ratio)))
    scaled = [replace(s, advantage=s.advantage * np.float32(weight)) for s in samples]
    expected, plain = trained_by(None, scaled)
    for name, value in expected.items():
        torch.testing.assert_close(corrected[name], value, atol=1e-5, rtol=1e-4)
    assert row["update/mismatch"] == pytest.approx(abs(math.log(ratio)), abs=1e-5)
    # Adam does not see a factor that all tokens share; the norm before clipping and the loss do.
    for name in ("clip_fraction", "grad_norm", "policy_loss"):
        assert row[f"update/{name}"] == pytest.approx(plain[f"update/{name}"], rel=1e-4)


def test_without_a_correction_the_clip_has_to_do_it():
    """r = 8 lies beyond PPO's clip, so tokens with a positive advantage teach nothing at all."""
    samples = [replace(s, advantage=np.abs(s.advantage)) for s in on_policy(Toy(0))]
    start = {name: p.detach().clone() for name, p in Toy(0).named_parameters()}
    compared, row = trained_by(Correction(None), shifted(samples, math.log(8)))
    assert all(torch.equal(compared[name], start[name]) for name in start)
    assert row["update/clip_fraction"] == 1
    assert row["update/mismatch"] == pytest.approx(math.log(8), abs=1e-5)
    corrected, _ = trained_by(Correction(2.0), shifted(samples, math.log(8)))
    assert any(not torch.equal(corrected[name], start[name]) for name in start)


def test_transformers_alone_logs_no_comparison():
    row = updater().update(on_policy(Toy(0)), groups=4, iteration=1, seed=0)
    assert "update/mismatch_max" not in row
    assert row["update/mismatch"] == pytest.approx(0, abs=1e-6)


def test_an_update_compares_at_the_temperature_of_the_samples():
    up = updater(temperature=0.7)
    up.correction = Correction(2.0)
    row = up.update(on_policy(Toy(0), temperature=0.7), groups=4, iteration=1, seed=0)
    assert row["update/importance_mean"] == pytest.approx(1, abs=1e-6)
    assert row["update/mismatch_max"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "dtype", "needed"),
    [
        ({"name": "gspo"}, torch.bfloat16, True),
        ({"name": "gspo"}, torch.float16, True),
        ({"name": "gspo"}, torch.float32, False),
        ({"name": "gspo", "clip_low": 0.2, "clip_high": 0.2}, torch.bfloat16, False),  # as gagpo
        ({"name": "ppo_clip"}, torch.bfloat16, False),
    ],
)
def test_narrow_bounds_of_a_row_need_the_trainers_own_logprobs(loss, dtype, needed):
    assert needs_own_logprobs(LossSection(**loss), torch.finfo(dtype)) is needed
    correction = build_correction("auto", "transformers", own_logprobs=needed)
    assert correction == (Correction(2.0) if needed else None)
    assert build_correction("off", "transformers", own_logprobs=needed) is None
