"""Plans: dimensions against real models, counted bytes against torch's own, times by hand."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from command import run_command
from repro_rl.config import load_config
from repro_rl.errors import ConfigError
from repro_rl.plan.devices import Device, find_device
from repro_rl.plan.hours import Rates, by_rates, decode_passes, flops_of, on_device
from repro_rl.plan.memory import memory_parts, peak
from repro_rl.plan.network import Network, network_of, read_network
from repro_rl.plan.plan import make_plan
from repro_rl.plan.tokens import TokenTable, share_over, spread
from repro_rl.plan.workload import workload_of
from repro_rl.policy import TransformersPolicy
from repro_rl.policy.qwen_shapes import SHAPES, Shape, model_config

NET = Network("n", 8, 2, 2, 1, 4, 16, 100, True, True)


def test_dimensions_give_the_models_parameters(tiny_folder):
    published = {"Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304, "Qwen/Qwen2.5-7B": 7_615_616_512}
    published |= {"Qwen/Qwen3-4B": 4_022_468_096, "Qwen/Qwen3-8B": 8_190_735_360}
    for model, parameters in published.items():
        assert network_of(load_config(None, [f"policy.model={model}"])).parameters == parameters
    real = TransformersPolicy.load(tiny_folder, device="cpu").model
    assert read_network(tiny_folder).parameters == sum(p.numel() for p in real.parameters())
    with pytest.raises(ConfigError, match=r"'Qwen/Qwen3-4C' is not known here; did you mean 'Qwen/Qwen3-4B'"):
        network_of(load_config(None, ["policy.model=Qwen/Qwen3-4C"]))
    assert len(SHAPES) >= 10


def test_an_adapters_parameters_are_pefts(tiny_folder):
    pytest.importorskip("peft", reason="needs repro-rl[lora]")
    from repro_rl.policy.lora import LoraSettings

    for targets in ("all-linear", ("q_proj", "down_proj")):
        policy = TransformersPolicy.load(tiny_folder, device="cpu")
        net = read_network(tiny_folder)
        policy.adapt(LoraSettings(3, targets=targets), tiny_folder, 0)
        trained = sum(p.numel() for p in policy.model.parameters() if p.requires_grad)
        assert net.adapter(3, targets if isinstance(targets, str) else list(targets)) == trained


def saved_bytes(shape: Shape, dtype: torch.dtype, mixed: bool, rows: int, width: int) -> int:
    """What a forward pass of a real model keeps for its backward pass, weights apart."""
    from transformers import AutoModelForCausalLM

    config = model_config(shape)
    config.pad_token_id = config.bos_token_id = config.eos_token_id = None
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).train()
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    seen: dict[int, tuple[int, Any]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            seen[storage._cdata] = (storage.nbytes(), tensor)  # kept alive, so that no address comes twice
        return tensor

    precision: Any = torch.autocast("cpu", torch.bfloat16) if mixed else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), precision:
        ids = torch.zeros((rows, width), dtype=torch.long)
        model(input_ids=ids, use_cache=False, logits_to_keep=torch.arange(1))
    return sum(size for size, _ in seen.values())


@pytest.mark.parametrize("family", ["qwen2.5", "qwen3"])
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "mixed"])
def test_activation_bytes_are_what_torch_keeps(family, kind):
    mixed, dtype = kind == "mixed", torch.bfloat16 if kind == "bfloat16" else torch.float32
    rows, width = 2, 64
    one = Shape(family, 64, 1, 4, 2, 200, vocab=50, head_dim=32 if family == "qwen3" else None)
    per_layer = (
        saved_bytes(replace(one, layers=3), dtype, mixed, rows, width)
        - saved_bytes(one, dtype, mixed, rows, width)
    ) / 2
    net = Network("n", 64, 1, 4, 2, one.head, 200, 50, True, family == "qwen3")
    weights = 2 if kind == "bfloat16" else 4
    expected = rows * width * net.activation_bytes(weights, mixed)
    if mixed:  # and, once, the bfloat16 copies of the weights
        expected += 2 * net.layer_weights
    assert per_layer == pytest.approx(expected, rel=0.01)


TABLE = TokenTable(
    forward=[10, 20, 30, 40], reflect=[50, 70], lengths=[2, 2], forward_target=[4] * 4, reflect_target=[6, 6]
)


def planned(*more: str) -> tuple[Any, Any]:
    config = load_config(
        None,
        [
            "train={groups: 2, group_size: 4, minibatches: 2, micro_tokens: 100, epochs: 1}",
            "prompt={style: compact, max_prompt_tokens: 30, action_tokens: 4, reflect_new_tokens: 8}",
            "method={name: repro, reflect_share: 0.5}",
            *more,
        ],
    )
    return config, workload_of(config, TABLE)


def test_the_work_of_an_iteration_by_hand():
    _, work = planned()
    assert (work.episodes, work.steps) == (8, 2)
    assert work.prompt == (10 + 20 + 30 + 30) / 4  # the longest is cut to its limit
    assert (work.completion, work.reflect_completion) == (4, 6)
    assert work.prompt_tokens == 16 * 22.5 + 8 * 60
    assert work.completion_tokens == 16 * 4 + 8 * 6
    assert work.trained_cells == 16 * 26.5 + 4 * 66  # half the reflections
    assert work.longest == 76
    config, thinking = planned("prompt.style=full", "prompt.think=optional")
    assert thinking.reflect_completion == 6  # half the limit is less than the answer
    assert workload_of(config, TABLE, completion=3.0).completion == 3
    _, act = planned("method={name: gigpo}")
    assert act.reflect_prompt == act.trained_reflections == 0


def test_flops_and_times_by_hand():
    assert NET.layer_weights == 8 * (16 + 8 + 48)
    # 10 tokens, each sees 3: 2 layers of 576 weights; 4 FLOPs a layer, query width and seen token; logits.
    assert NET.forward_flops(10, 3, 2) == 10 * (2 * 2 * 576 + 4 * 2 * 8 * 3) + 2 * 2 * 8 * 100
    config, work = planned()
    flops = flops_of(config, NET, work)
    width = work.trained_cells / 20
    forward = NET.forward_flops(work.trained_cells, width / 2, work.trained_tokens)
    assert flops["update"] == 3 * forward
    assert flops["reference"] == forward
    saving, _ = planned("train.gradient_checkpointing=true")
    assert flops_of(saving, NET, work)["update"] > 3 * forward
    lora, _ = planned("policy.lora.rank=2")
    assert flops_of(lora, NET, work)["update"] == 2 * forward
    # 8 rows at once: 2 steps of 3 passes (the first token comes with the prompt), 5 for the reflection.
    assert [(passes, rows) for passes, rows, _ in decode_passes(config, work)] == [(6, 8), (5, 8)]
    seconds = by_rates(config, NET, work, Rates(1e6, 2e6, 0.1, 0.01, 1e-3))
    assert seconds.decode == pytest.approx(11 * (0.1 + 7 * 0.01))
    assert seconds.update == pytest.approx(flops["update"] / 1e6 + 2 * NET.parameters * 1e-3)
    assert seconds.reference == pytest.approx(flops["reference"] / 2e6)
    device = Device("d", 1e9, 1e6, 1e9, 0.5, 0.25, 1.0, launch=0.5)
    on = on_device(config, NET, work, device)
    assert on.decode == pytest.approx(11 * 2 * 0.5)  # launches decide
    assert on.update == pytest.approx(flops["update"] / 0.5e6)
    with pytest.raises(ConfigError, match=r"Unknown GPU 'h10'; did you mean 'h100'"):
        find_device("h10")


def test_memory_by_hand():
    config, work = planned("train.kl={form: k3, coef: 0.01}")
    parts = memory_parts(config, NET, work, gpu=False)
    size = NET.parameters
    assert parts["weights"] == parts["gradients"] == parts["reference"] == 4 * size
    assert parts["optimizer"] == 8 * size
    assert parts["copies for autocast"] == 0
    assert parts["activations"] == work.update_batch_cells * 2 * NET.activation_bytes(4, False)
    assert peak(parts) < sum(parts.values())  # playing and updating take turns
    lora, _ = planned("train.kl={form: k3, coef: 0.01}", "policy.lora.rank=2")
    parts = memory_parts(lora, NET, work, gpu=True)
    adapter = NET.adapter(2, "all-linear")
    assert parts["weights"] == 2 * size + 4 * adapter
    assert parts["optimizer"] == 8 * adapter
    assert parts["reference"] == 0  # the adapter is switched off instead
    judged, _ = planned("train.kl.form=none", "method=repro-fixed-judge")
    assert memory_parts(judged, NET, work, gpu=False)["reference"] == 4 * size  # the judge is a second copy
    without, _ = planned("train.kl.form=none", "method.rehearsal=0")
    assert memory_parts(without, NET, work, gpu=False)["reference"] == 0
    eight, _ = planned("train.optimizer=adamw8bit")
    assert memory_parts(eight, NET, work, gpu=True)["optimizer"] == 2 * size


def test_large_full_training_does_not_fit_where_an_adapter_does():
    def fits(*more: str) -> bool:
        config = load_config("paper/sokoban-4b", [*more])
        plan = make_plan(config, [find_device("h100")], tasks=1)
        assert any("characters are taken for a token" in note for note in plan.notes)
        return plan.estimates[0].fits

    assert not fits()
    assert fits("policy.lora.rank=64")


def test_spreads():
    assert spread([1, 2, 3, 100]) == (3, 86, 100)
    assert share_over([1, 2, 3, 100], 2) == 0.5
    assert share_over([], 2) == 0


def test_a_tiny_run_is_planned_by_playing_a_part(warm, capsys, monkeypatch, tmp_path):
    settings = [*warm.settings, "train={groups: 8, group_size: 4, minibatches: 2, eval_every: 0}"]
    before = {path: path.stat().st_mtime_ns for path in Path(warm.model).iterdir()}
    plan = make_plan(load_config(None, [*settings, f"train.init={warm.model}"]), [], probe=True, tasks=4)
    (estimate,) = plan.estimates
    assert plan.net.parameters < 100_000
    assert estimate.iteration > 0
    assert 50e6 < estimate.peak < 20e9
    assert estimate.hours == pytest.approx(40 * estimate.iteration / 3600)
    assert before == {path: path.stat().st_mtime_ns for path in Path(warm.model).iterdir()}
    status, out = run_command(
        capsys, monkeypatch, "plan", "paper/sokoban-4b", "--gpu", "h100", "--tasks", "1", "train.groups=8"
    )
    assert status == 0
    assert "Qwen/Qwen3-4B: 4,022,468,096 parameters" in out
    assert "64 episodes" in out
    status, out = run_command(capsys, monkeypatch, "plan", "paper/sokoban-4b", "--probe")
    assert status == 2
    assert "is not on this machine" in out


def test_rates_are_measured_on_a_local_model(tiny_folder):
    from repro_rl.plan.probe import measure_rates

    config = load_config(None, ["policy={model: tiny, device: cpu}"])
    policy = TransformersPolicy.load(tiny_folder, device="cpu")
    before = {name: p.clone() for name, p in policy.model.named_parameters()}
    lines: list[str] = []
    rates = measure_rates(config, policy, read_network(tiny_folder), lines.append)
    assert min(rates.train, rates.prefill, rates.decode_pass, rates.weight_step) > 0
    assert "GFLOP/s training" in lines[0]
    assert all(torch.equal(p, before[name]) for name, p in policy.model.named_parameters())
