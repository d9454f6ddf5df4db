"""Measurements on this machine."""

from __future__ import annotations

import pytest
import torch

from repro_rl.config import PolicySection
from repro_rl.errors import PreflightError
from repro_rl.plan import probe_rates
from repro_rl.plan.model_shape import read_shape
from repro_rl.plan.probe_iterations import (
    MeasuredIteration,
    extrapolate,
    measure_iteration,
    probe_groups,
)
from repro_rl.plan.probe_rates import measure_rates
from repro_rl.policy import TransformersPolicy
from support.plan_cases import small_training


def test_rates_are_measured_on_a_local_model(tiny_folder):
    policy = TransformersPolicy.load(tiny_folder, PolicySection(device="cpu"))
    before = {name: p.clone() for name, p in policy.model.named_parameters()}
    lines: list[str] = []
    rates = measure_rates(policy, read_shape(tiny_folder), small_training(), lines.append)
    assert min(rates.train, rates.prefill, rates.decode_step, rates.optimizer_weight) > 0
    assert "GFLOP/s training" in lines[0]
    assert all(torch.equal(p, before[name]) for name, p in policy.model.named_parameters())


def test_a_gpu_is_measured_with_batches_that_keep_it_busy(tiny_folder, monkeypatch):
    """Rates are those of a row; decoding is measured after its graphs were captured."""
    policy = TransformersPolicy.load(tiny_folder, PolicySection(device="cpu", packed=False))
    shape = read_shape(tiny_folder)
    trained, read, opened = [], [], []
    card = type("Card", (), {"type": "cuda"})()
    monkeypatch.setattr(TransformersPolicy, "device", card)
    seconds = {"_decode_seconds": lambda *_: 0.5, "_optimizer_seconds": lambda *_: 1.0}
    seconds["_training_seconds"] = lambda policy, batch: 2.0
    seconds["_prefill_seconds"] = lambda policy, vocabulary, rows: read.append(rows) or 4.0
    batches = lambda policy, vocabulary, rows: trained.append(rows)  # noqa: E731
    decode = probe_rates._decode_seconds
    for name, value in {**seconds, "_probe_batch": batches}.items():
        monkeypatch.setattr(probe_rates, name, value)
    training = small_training()
    rates = measure_rates(policy, shape, training, lambda line: None, micro_tokens=2048)
    assert (trained, read) == ([8], [16])
    width, answer = probe_rates.WIDTH, probe_rates.ANSWER
    forward, layers = (shape.forward_flops(width, width / 2, count) for count in (answer, 0))
    assert rates.train == pytest.approx(8 * training.update_flops(forward, layers) / 2)
    assert rates.prefill == pytest.approx(16 * shape.forward_flops(width, width / 2, 1) / 4)

    class Session:
        def answer(self, rows, *_):
            return [type("Answer", (), {"token_ids": (1, 2)})() for _ in rows]

        def close(self, row):
            pass

    monkeypatch.setattr(policy, "open_chat", lambda: opened.append(1) or Session())
    decode(policy, shape.vocab, 2, 16)
    assert len(opened) == 2


def test_probed_groups_are_whole_mini_batches():
    assert probe_groups(8, 2) == (2, 4)
    assert probe_groups(64, 4) == (16, 32)
    assert probe_groups(2, 2) is None


def test_a_line_through_two_iterations_never_falls():
    smaller, larger = MeasuredIteration(2, 1.0, 10.0), MeasuredIteration(4, 1.5, 9.0)
    assert extrapolate(smaller, larger, 8) == MeasuredIteration(8, pytest.approx(2.5), 10.0)


def test_a_probe_that_fails_says_why_in_the_words_of_the_run():
    """Without the name of the error's class, and with all lines of its message."""
    settings = {"train": {"lr": "small", "epochs": 0}}
    with pytest.raises(PreflightError, match=r"^The probe failed: train\.\w+: .*\n.*train\.\w+: "):
        measure_iteration(settings, 1, print)
