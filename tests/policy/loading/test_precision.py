"""Devices, dtypes, and forward passes under autocast."""

from __future__ import annotations

import re

import pytest
import torch

from repro_rl.config import LoraSection, PolicySection
from repro_rl.errors import ConfigError
from repro_rl.policy.loading import precision
from repro_rl.policy.loading.precision import (
    choose_precision,
    fast_bfloat16,
    prepare_gpu,
    resolve_device,
)
from repro_rl.policy.model import processor as processor_module
from repro_rl.policy.model.processor import this_processor
from repro_rl.run.models import load_policy, load_reference
from support.foreign_models import LLAMA_LIKE, save_foreign
from support.models import load_cpu
from support.processors import GRAVITON3, HASWELL, NEOVERSE_N1, SAPPHIRE_RAPIDS, ZEN4


@pytest.mark.parametrize("dtype", ["float33", "Tensor", ""])
def test_unknown_dtype(tiny_folder, dtype):
    with pytest.raises(ConfigError, match="not a torch dtype"):
        load_cpu(tiny_folder, dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "device", "training", "weights", "mixed"),
    [
        ("auto", "cpu", False, torch.float32, False),
        ("auto", "cpu", True, torch.float32, False),
        ("auto", "cuda", False, torch.bfloat16, False),
        ("auto", "cuda:1", True, torch.float32, True),
        ("float32", "cuda", True, torch.float32, False),
        ("bfloat16", "cuda", True, torch.bfloat16, False),
        ("bfloat16", "cpu", True, torch.bfloat16, False),
    ],
)
def test_weights_to_train_are_float32(dtype, device, training, weights, mixed):
    assert choose_precision(dtype, device, training)[:2] == (weights, mixed)


def test_dtype_and_device(tiny_folder):
    assert load_cpu(tiny_folder).model.dtype == torch.float32
    assert load_cpu(tiny_folder, dtype="bfloat16").model.dtype == torch.bfloat16
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(ConfigError, match=r"policy.device is 'gpu'"):
        resolve_device("gpu")
    if not torch.cuda.is_available():
        assert resolve_device("auto") == "cpu"
        with pytest.raises(ConfigError, match="torch sees no GPU"):
            resolve_device("cuda:1")


def test_a_gpu_with_a_number_becomes_the_current_one(monkeypatch, tiny_folder):
    """Streams and graphs belong to the current device; cuDNN's attention plans for every new shape."""
    calls = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(str(device)))
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", lambda on: calls.append(on))
    prepare_gpu("cpu")
    assert calls == []
    prepare_gpu("cuda")
    assert calls == [False]
    prepare_gpu("cuda:1")
    assert calls == [False, "cuda:1", False]
    prepared = []
    monkeypatch.setattr("repro_rl.policy.transformers_policy.prepare_gpu", prepared.append)
    load_cpu(tiny_folder)
    assert prepared == ["cpu"]


def test_frozen_weights_beside_an_adapter_stay_bfloat16():
    assert choose_precision("auto", "cuda", True, frozen=True)[:2] == (torch.bfloat16, True)
    assert choose_precision("auto", "cuda", False, frozen=True)[:2] == (torch.bfloat16, False)
    assert choose_precision("auto", "cpu", True, frozen=True)[:2] == (torch.float32, False)


@pytest.fixture
def processor(tmp_path, monkeypatch):
    """Sets what /proc/cpuinfo says; None: there is no such file."""

    def set_to(text: str | None) -> None:
        path = tmp_path / "cpuinfo"
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        monkeypatch.setattr(processor_module, "CPU_INFO", path)
        fast_bfloat16.cache_clear()

    yield set_to
    fast_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        (ZEN4, "avx512_bf16"),
        (SAPPHIRE_RAPIDS, "amx_bf16"),
        (GRAVITON3, "bf16"),
        (HASWELL, None),
        (NEOVERSE_N1, None),
    ],
)
def test_a_cpu_is_known_by_its_flags(processor, text, flag):
    processor(text)
    expected = torch.float32 if flag is None else torch.bfloat16
    for training, frozen in ((False, False), (True, True), (False, True)):
        chosen = choose_precision("auto", "cpu", training, frozen, 1024)
        assert chosen[:2] == (expected, False)
        assert chosen.reason.endswith(f"the processor has {flag or 'no bfloat16 products'}")
    # Weights to train, narrow models and those of unknown width are float32 on every processor.
    assert choose_precision("auto", "cpu", True, False, 1024)[:2] == (torch.float32, False)
    assert choose_precision("auto", "cpu", False, False, 64)[:2] == (torch.float32, False)
    assert choose_precision("auto", "cpu", False)[:2] == (torch.float32, False)


def test_a_cpu_without_flags_is_measured(processor, monkeypatch):
    processor(None)
    assert this_processor() is None
    fast, why = fast_bfloat16()  # a real measurement, whatever it says on this machine
    assert why.startswith("bfloat16 products measured at ")
    assert fast == (float(why.split()[4]) >= 1.3) or "1.3" in why
    for text in ("", "flag : none"):
        processor(text)
        assert "measured" in fast_bfloat16()[1]
    for gain, expected in ((2.0, torch.bfloat16), (1.0, torch.float32)):
        processor(None)
        monkeypatch.setattr(precision, "_measured_gain", lambda gain=gain: gain)
        assert choose_precision("auto", "cpu", False, width=1024).weights == expected


@pytest.mark.parametrize(
    ("dtype", "text", "device", "width", "warned"),
    [
        ("bfloat16", HASWELL, "cpu", 1024, "bfloat16 is slower .*: the processor has no bfloat16 products"),
        ("bfloat16", HASWELL, "cpu", 64, None),  # bound by the number of calls, not by products
        ("bfloat16", HASWELL, "cuda", 1024, None),
        ("bfloat16", ZEN4, "cpu", 1024, None),
        ("float16", ZEN4, "cpu", 1024, "float16 is slower than float32 on this CPU: the processor has"),
        ("float16", NEOVERSE_N1 + " asimdhp", "cpu", 1024, None),
        ("float16", None, "cpu", 1024, None),  # not known
        ("float32", HASWELL, "cpu", 1024, None),
        ("float64", HASWELL, "cpu", 1024, None),
    ],
)
def test_a_named_half_precision_that_slows_a_cpu_warns(
    processor, recwarn, dtype, text, device, width, warned
):
    processor(text)
    assert choose_precision(dtype, device, False, width=width).weights == getattr(torch, dtype)
    messages = [str(each.message) for each in recwarn]
    assert len(messages) == (warned is not None)
    assert warned is None or re.search(warned, messages[0])


def test_a_wide_model_takes_it_and_says_why(processor, tiny_folder, tmp_path):
    """A model of 256 numbers a token; the same in training is float32, and so is the tiny one."""
    processor(ZEN4)
    wide = save_foreign(tmp_path / "wide", tiny_folder, "llama", **LLAMA_LIKE | {"hidden_size": 256})
    described = load_cpu(wide).describe()
    assert described["dtype"] == "bfloat16"
    assert described["dtype_reason"] == "weights that are not trained; the processor has avx512_bf16"
    assert load_cpu(wide, training=True).describe()["dtype"] == "float32"
    assert load_cpu(wide, training=True, lora={"rank": 2}).model.dtype == torch.bfloat16
    assert load_cpu(tiny_folder).describe() == {
        "backend": "transformers",
        "dtype": "float32",
        "dtype_reason": "a narrow model on a CPU",
        "device": "cpu",
        "attention": "sdpa",
        "packed": True,
        "kernels": False,
        "static_cache": False,
        "adapter": False,
    }
    # The frozen reference of a policy in training computes as that policy does.
    section = PolicySection(device="cpu")
    policy = load_policy(section, wide, training=True)
    reference = load_reference(section, policy, wide, kl=True, judge=False)
    assert reference.model.dtype == torch.float32


def test_an_adapter_trains_beside_frozen_bfloat16_weights(processor, tiny_folder, tmp_path):
    pytest.importorskip("peft", reason="needs repro-rl[lora]")
    processor(GRAVITON3)
    wide = save_foreign(tmp_path / "wide", tiny_folder, "llama", **LLAMA_LIKE | {"hidden_size": 256})
    policy = load_cpu(wide, training=True, lora={"rank": 2})
    policy.adapt(LoraSection(rank=2), wide, 0)
    trained = [p for p in policy.model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    ids = torch.tensor([[3, 4, 5, 6, 7]])
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = policy.model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1


def test_why_weights_to_train_are_float32():
    """1 is followed by 1.0078125 in bfloat16: AdamW's steps of lr = 1e-3 are lost (decision DTYPE)."""
    for kind, moved in ((choose_precision("auto", "cuda", True).weights, True), (torch.bfloat16, False)):
        weight = torch.nn.Parameter(torch.ones(4, dtype=kind))
        optimizer = torch.optim.AdamW([weight], lr=1e-3, weight_decay=0.0)
        for _ in range(20):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        assert bool((weight != 1).all()) == moved


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_training_in_half_precision_is_warned_of_or_refused(tiny_folder, dtype, recwarn):
    load_cpu(tiny_folder, dtype=dtype)
    load_cpu(tiny_folder, dtype=dtype, training=True, lora={"rank": 2})
    load_cpu(tiny_folder, dtype="float32", training=True)
    assert not [w for w in recwarn if "optimizer steps" in str(w.message)]
    message = rf"policy\.dtype={dtype}"
    if dtype == "float16":
        with pytest.raises(ConfigError, match=f"{message} cannot train all weights: .* leave its range"):
            load_cpu(tiny_folder, dtype=dtype, training=True)
    else:
        with pytest.warns(UserWarning, match=f"{message}: optimizer steps smaller than the rounding"):
            load_cpu(tiny_folder, dtype=dtype, training=True)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float8_e4m3fn", "bool"])
def test_a_dtype_that_holds_no_weights(tiny_folder, dtype):
    with pytest.raises(ConfigError, match="not a torch dtype for weights"):
        load_cpu(tiny_folder, dtype=dtype)
