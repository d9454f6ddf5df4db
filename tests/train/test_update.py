"""One update: its gradient, its mini-batches, and what it does with broken numbers."""

from __future__ import annotations

import math
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from repro_rl.config import AlarmSection, KlSection, TrainSection
from repro_rl.errors import PreflightError
from repro_rl.run.alarms import Alarms
from repro_rl.run.checkpoint import optimizer_tensors
from repro_rl.train.batch import Collation, merge
from repro_rl.train.schedule import minibatch_order
from repro_rl.train.update import TrainedModel, Updater, check_kl
from repro_rl.types import TokenKind
from support.toy import SCALES, Toy, gradient, on_policy, reference_loss, sample_of, updater


def test_check_kl():
    check_kl("exact", 16_384)
    check_kl("k3", 200_000)
    with pytest.raises(PreflightError, match=r"151,936.*train\.kl\.form=k3"):
        check_kl("exact", 151_936)


def test_first_update_is_plain_policy_gradient():
    """One mini-batch, one epoch: the gradient of the reference at ratio 1, mean over tokens by kind."""
    up = updater(minibatches=1, grad_clip=1e9)
    samples = on_policy(up.trained.model)
    scales = {
        kind: 1 / sum(int((s.kind == kind).sum()) for s in samples)
        for kind in (TokenKind.ACT, TokenKind.REFLECT)
    }
    model = Toy()
    expected = gradient(model, reference_loss(model, samples, scales, clip=0.2))
    metrics = up.update(samples, groups=4, iteration=1, seed=0)
    assert metrics["update/grad_norm"] == pytest.approx(float(expected.norm()), rel=1e-6)
    assert metrics["update/mismatch"] == pytest.approx(0, abs=1e-6)
    assert metrics["update/clip_fraction"] == 0
    assert metrics["update/skipped"] == 0
    assert metrics["update/distinct_rows"] == len(merge(samples)) / len(samples)
    # Adam's first step is lr * sign(gradient)
    moved = (up.trained.model.table - model.table).detach()
    big = expected.abs() > 1e-5
    assert torch.allclose(moved[big], -0.1 * expected[big].sign(), atol=1e-3)
    assert torch.equal(moved[expected == 0], torch.zeros_like(moved[expected == 0]))


def test_every_setting_reaches_the_loss_and_the_optimizer():
    options = {"clip": 0.3, "entropy_coef": 0.02, "temperature": 0.7, "minibatches": 1, "grad_clip": 1e9}
    up = updater(**options, betas=(0.8, 0.95), weight_decay=0.1)
    assert (up.loss.clip, up.loss.entropy_coef, up.loss.temperature) == (0.3, 0.02, 0.7)
    [group] = up.optimizer.param_groups
    assert (group["betas"], group["weight_decay"]) == ((0.8, 0.95), 0.1)

    samples = on_policy(up.trained.model, temperature=0.7)
    for sample in samples[::2]:  # ratios of 1.25 and 0.75: clipped at 0.2, not at 0.3
        sample.logprob[sample.trained] -= np.log(1.25)
    for sample in samples[1::2]:
        sample.logprob[sample.trained] -= np.log(0.75)
    model = Toy()
    counts = {kind: sum(int((s.kind == kind).sum()) for s in samples) for kind in SCALES}
    scales = {kind: 1 / count for kind, count in counts.items()}
    loss = reference_loss(model, samples, scales, clip=0.3, entropy_coef=0.02, temperature=0.7)
    expected = gradient(model, loss)
    row = up.update(samples, groups=4, iteration=1, seed=0)
    assert row["update/clip_fraction"] == 0
    assert row["update/mismatch"] == pytest.approx((np.log(1.25) - np.log(0.75)) / 2, abs=1e-6)
    assert row["update/grad_norm"] == pytest.approx(float(expected.norm()), rel=1e-6)


def test_a_reflection_weighs_its_coefficient():
    """Mean over the tokens of a kind: 2 * 2 of acting weigh 1/4 each, 3 of reflecting 0.3/3."""
    samples = [
        sample_of([1, 2, 3], 1, 1.0, -1.0),
        sample_of([2, 2, 3], 1, 1.0, -1.0),
        sample_of([3, 1, 2, 3], 1, 1.0, -1.0, TokenKind.REFLECT),
    ]
    section = TrainSection(groups=1, minibatches=1, kl=KlSection(form="none"))
    up = Updater(TrainedModel(Toy(), None, pad_id=0), section, 0.3)
    [batch] = up._batches(merge(samples), Collation(0, torch.device("cpu")))
    scales = batch.targets.scale
    assert scales[batch.targets.of_kind(TokenKind.ACT)].tolist() == pytest.approx([0.25] * 4)
    assert scales[batch.targets.of_kind(TokenKind.REFLECT)].tolist() == pytest.approx([0.1] * 3)


def test_update_improves_what_it_optimises_and_is_determined():
    one, two, other = (updater(lr=0.01, minibatches=4, epochs=2) for _ in range(3))
    samples = on_policy(one.trained.model)
    before = float(reference_loss(one.trained.model, samples, SCALES, clip=0.2).detach())
    for up, seed in ((one, 0), (two, 0), (other, 1)):
        up.update(samples, groups=4, iteration=1, seed=seed)
    assert float(reference_loss(one.trained.model, samples, SCALES, clip=0.2).detach()) < before
    assert torch.equal(one.trained.model.table, two.trained.model.table)
    assert not torch.equal(one.trained.model.table, other.trained.model.table)


def test_every_forward_pass_of_an_update_has_the_precision_of_the_sampler():
    entered = []

    @contextmanager
    def precision():
        entered.append(True)
        yield
        entered.append(False)

    model = Toy(0)
    inside = []
    for module in (model, reference := Toy(1)):
        module.register_forward_hook(lambda *_: inside.append(entered[-1:] == [True]))
    section = TrainSection(groups=4, minibatches=2, epochs=1, lr=0.1, kl=KlSection(form="k3"))
    trained = TrainedModel(model, reference, pad_id=0, precision=precision)
    up = Updater(trained, section, 1.0)
    samples = on_policy(Toy(0))
    up.update(samples, groups=4, iteration=1, seed=0)
    assert len(inside) == 4  # two mini-batches, each seen by the reference and by the policy
    assert all(inside)


def test_minibatches_keep_groups_together():
    seen = []

    class Spy:
        def apply(self, model, parts, temperature, precision):
            seen.extend(parts)
            return parts, {}

    up = updater(minibatches=2)
    up.correction = Spy()
    sizes = (1, 2, 3, 6)  # samples of each group: no half of the samples is a union of groups
    every = on_policy(up.trained.model)
    samples = [s for g, size in enumerate(sizes) for s in [s for s in every if s.group == g][:size]]
    up.update(samples, groups=4, iteration=1, seed=0)
    assert len(seen) == 2
    tokens = [sum(float(batch.targets.weight.sum()) for batch in part) for part in seen]
    order = minibatch_order(4, 1, 0)
    assert tokens == [sum(3 * sizes[g] for g in part) for part in (order[:2], order[2:])]


def test_kl_pulls_to_the_reference():
    reference = Toy(seed=5)
    up = updater(reference=reference, kl={"form": "exact", "coef": 1.0}, lr=0.05)
    samples = on_policy(up.trained.model)
    for sample in samples:
        sample.advantage[:] = 0
    first = up.update(samples, groups=4, iteration=1, seed=0)["update/kl"]
    for iteration in range(2, 12):
        last = up.update(samples, groups=4, iteration=iteration, seed=0)["update/kl"]
    assert 0 < last < 0.3 * first
    same = updater(reference=Toy(seed=0), kl={"form": "exact", "coef": 1.0}, minibatches=1)
    assert same.update(samples, groups=4, iteration=1, seed=0)["update/kl"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("where", ["advantage", "logprob"])
def test_a_broken_mini_batch_is_skipped_and_poisons_nothing(where):
    up = updater()
    samples = on_policy(up.trained.model)
    bad = next(s for s in samples if s.group == 2)
    getattr(bad, where)[3] = np.nan
    metrics = up.update(samples, groups=4, iteration=1, seed=0)
    assert metrics["update/skipped"] == 1
    assert torch.isfinite(up.trained.model.table).all()
    assert all(torch.isfinite(t).all() for t in optimizer_tensors(up.optimizer).values())
    assert not torch.equal(up.trained.model.table, Toy().table)  # the other mini-batch was applied
    assert all(math.isfinite(value) for value in metrics.values()), metrics
    warnings, reason = Alarms(AlarmSection(min_entropy=0, max_mismatch=10)).check(metrics)
    assert reason is None  # skipping is a warning until it happens again and again
    assert any("1 mini-batch skipped" in text for text in warnings)
    everything = updater()
    for sample in samples:
        sample.advantage[3] = np.nan
    metrics = everything.update(samples, groups=4, iteration=1, seed=0)
    assert metrics["update/skipped"] == 2
    assert torch.equal(everything.trained.model.table, Toy().table)


def test_learning_rate_warms_up():
    up = updater(lr=0.1, lr_warmup=4)
    assert [up.learning_rate(i) for i in (1, 2, 4, 9)] == pytest.approx([0.025, 0.05, 0.1, 0.1])
    assert updater(lr=0.1, lr_warmup=0).learning_rate(1) == 0.1
    row = up.update(on_policy(up.trained.model), groups=4, iteration=1, seed=0)
    assert row["update/lr"] == pytest.approx(0.025)
    assert [group["lr"] for group in up.optimizer.param_groups] == pytest.approx([0.025])


def test_gradients_are_clipped_and_their_norm_before_is_logged(monkeypatch):
    up = updater(minibatches=1, grad_clip=1e-3)
    norms = []
    step = up.optimizer.step

    def seen():
        norms.append(float(up.trained.model.table.grad.norm()))
        return step()

    monkeypatch.setattr(up.optimizer, "step", seen)
    row = up.update(on_policy(up.trained.model), groups=4, iteration=1, seed=0)
    assert norms == pytest.approx([1e-3], rel=1e-3)
    assert row["update/grad_norm"] > 1e-2


def test_a_launcher_s_accumulation_of_gradients_does_not_scale_them(monkeypatch):
    """``accelerate launch`` sets this variable from its configuration; mini-batches are whole here."""
    samples = on_policy(Toy(0))
    plain = updater(minibatches=1).update(samples, groups=4, iteration=1, seed=0)
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    launched = updater(minibatches=1).update(samples, groups=4, iteration=1, seed=0)
    assert launched["update/grad_norm"] == plain["update/grad_norm"] > 0


def test_batches_go_to_where_the_weights_are():
    """As policy.device says, for example cuda:1; not to the process's first GPU."""
    assert TrainedModel(Toy().to("meta"), None, pad_id=0).device == torch.device("meta")
