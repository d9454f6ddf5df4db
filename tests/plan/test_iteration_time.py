"""FLOPs and seconds of an iteration, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from repro_rl.errors import ConfigError
from repro_rl.plan.devices import Device, find_device
from repro_rl.plan.estimate import RunOutline, estimate_from_iteration, estimate_from_parts
from repro_rl.plan.iteration_time import (
    IterationTime,
    Rates,
    iteration_flops,
    time_by_rates,
    time_on_device,
)
from repro_rl.plan.memory import memory_parts
from repro_rl.plan.probe_iterations import MeasuredIteration
from support.plan_cases import SHAPE, small_config, small_training, small_work


def test_flops_by_hand():
    assert SHAPE.layer_weights == 8 * (16 + 8 + 48)
    # 10 tokens, each sees 3: 2 layers of 576 weights; 4 FLOPs a layer, query width and seen token; logits.
    assert SHAPE.forward_flops(10, 3, 2) == 10 * (2 * 2 * 576 + 4 * 2 * 8 * 3) + 2 * 2 * 8 * 100
    work = small_work()
    flops = iteration_flops(SHAPE, work, small_training())
    forward = SHAPE.forward_flops(work.trained_cells, work.trained_cells / 20 / 2, work.trained_tokens)
    assert flops.update == 3 * forward
    assert flops.reference == forward
    saving = small_training("train.gradient_checkpointing=true")
    assert iteration_flops(SHAPE, work, saving).update > 3 * forward
    assert iteration_flops(SHAPE, work, small_training("policy.lora.rank=2")).update == 2 * forward


def test_times_by_hand():
    work, training = small_work(), small_training()
    flops = iteration_flops(SHAPE, work, training)
    seconds = time_by_rates(SHAPE, work, training, Rates(1e6, 2e6, 0.1, 0.01, 1e-3))
    assert seconds.decode == pytest.approx(11 * (0.1 + 7 * 0.01))
    assert seconds.update == pytest.approx(flops.update / 1e6 + 2 * SHAPE.parameters * 1e-3)
    assert seconds.reference == pytest.approx(flops.reference / 2e6)
    device = Device("d", 1e9, 1e6, 1e9, 0.5, 0.25, 1.0, layer_latency=0.5)
    on_device = time_on_device(SHAPE, work, training, device)
    assert on_device.decode == pytest.approx(11 * 2 * 0.5)  # the latency of the layers decides
    assert on_device.update == pytest.approx(flops.update / 0.5e6)


def test_prefill_by_hand():
    work = small_work()
    prompts = 16 * (22.5 - work.shared_prefix)
    acting = SHAPE.forward_flops(prompts, work.acting_context, 16)
    reflecting = SHAPE.forward_flops(8 * 60, work.reflect_context, 8)
    flops = iteration_flops(SHAPE, work, small_training())
    assert flops.prefill == pytest.approx(acting + reflecting)
    twice = iteration_flops(SHAPE, small_work("train.epochs=2"), small_training())
    assert (twice.update, twice.reference) == (2 * flops.update, flops.reference)


@pytest.mark.parametrize(("more", "weight"), [((), 4 + 2), (("policy.lora.rank=2",), 2)])
def test_decoding_on_a_device_reads_weights_and_cache(more, weight):
    """Float32 weights are read and their bfloat16 copies written; with an adapter they are bfloat16."""
    work, training = small_work(*more), small_training(*more)
    device = Device("d", 1e9, 1e6, 1e6, 0.5, 0.25, 0.5, layer_latency=0.0)
    seconds = time_on_device(SHAPE, work, training, device)
    acting, reflecting = work.decode_phases
    cache = 2 * 2 * 4 * 2  # bytes a position: keys and values of 2 layers with one head of 4, bfloat16
    weights = SHAPE.parameters * weight
    read = 6 * (weights + 8 * acting.context * cache) + 5 * (weights + 8 * reflecting.context * cache)
    assert seconds.decode == pytest.approx(read / 0.5e6)
    flops = iteration_flops(SHAPE, work, training)
    assert seconds.prefill == pytest.approx(flops.prefill / 0.25e6)
    assert seconds.reference == pytest.approx(flops.reference / 0.25e6)
    assert seconds.rollout == seconds.prefill + seconds.decode
    assert seconds.total == pytest.approx(seconds.rollout + seconds.update + seconds.reference)


def test_rates_measured_of_prefill_and_of_shared_beginnings():
    work, training = small_work(), small_training()
    apart = time_by_rates(SHAPE, work, training, Rates(1e6, 2e6, 0.1, 0.01))
    assert apart.prefill == pytest.approx(iteration_flops(SHAPE, work, training).prefill / 2e6)
    work = replace(work, trained_shared=100.0)
    assert time_by_rates(SHAPE, work, training, Rates(1e6, 2e6, 0.1, 0.01)).update == apart.update
    packed = time_by_rates(SHAPE, work, training, Rates(1e6, 2e6, 0.1, 0.01, packed=True))
    saved = 3 * SHAPE.forward_flops(100, work.trained_context, 0)
    assert packed.update == pytest.approx(apart.update - saved / 1e6)


def test_hours_of_a_run():
    """10 iterations of an hour, a validation of half an hour after every fifth."""

    def hours(*more: str) -> float:
        config = small_config("train.iterations=10", "train.validate_every=5", *more)
        return RunOutline(SHAPE, small_work(), small_training(), config.train, 4).hours(3600, 1800)

    assert hours() == 11
    assert hours("train.validate_every=0") == 10
    assert hours("train.env_steps=80") == 5.5  # 16 steps an iteration: 5 of them
    assert hours("train.env_steps=1600") == 11


def test_a_validation_takes_its_share_of_the_rollout():
    train = small_config("train.iterations=10", "train.validate_every=5").train
    run = RunOutline(SHAPE, small_work(), small_training(), train, validation_tasks=4)
    # Acting reads and writes 16 * (22.5 + 4) = 424 of 952 tokens; 8 episodes were played, 4 are.
    seconds = IterationTime(prefill=9.0, decode=0.52, update=20.0, reference=0.48)
    parts = memory_parts(SHAPE, small_work(), small_training(), gpu=False)
    found = estimate_from_parts(run, "d", 1e9, parts, seconds)
    assert found.validation == pytest.approx(9.52 * 424 / 952 / 2)
    assert found.iteration == pytest.approx(30)
    assert found.hours == pytest.approx((10 * 30 + 2 * found.validation) / 3600)
    assert found.fits
    measured = estimate_from_iteration(run, "d", MeasuredIteration(groups=2, seconds=8.0, memory=1e6))
    assert (measured.validation, measured.iteration, measured.peak) == (2, 8, 1e6)  # half, for half as many
    assert measured.hours == pytest.approx((10 * 8 + 2 * 2) / 3600)


def test_an_unknown_device_is_named():
    with pytest.raises(ConfigError, match=r"Unknown GPU 'h10'; did you mean 'h100'"):
        find_device("h10")
