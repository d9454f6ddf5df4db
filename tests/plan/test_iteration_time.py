"""FLOPs and seconds of an iteration, by hand."""

from __future__ import annotations

import pytest

from repro_rl.errors import ConfigError
from repro_rl.plan.devices import Device, find_device
from repro_rl.plan.iteration_time import Rates, iteration_flops, time_by_rates, time_on_device
from support.plan_cases import SHAPE, small_training, small_work


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


def test_an_unknown_device_is_named():
    with pytest.raises(ConfigError, match=r"Unknown GPU 'h10'; did you mean 'h100'"):
        find_device("h10")
