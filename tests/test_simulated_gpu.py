"""On a simulated GPU: numbers as on a CPU, no operand on the wrong device, decode steps over graphs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from support.simulated_cuda.build import build_device, environment, find_compiler
from support.simulated_cuda.runs import SETTINGS, VARIANTS

ROOT = Path(__file__).parents[1]
# Variants with other rounding: bfloat16, and autocast beside a CPU's float32.
ROUNDED = {"bfloat16", "the defaults of a GPU"}
FAMILIES = (
    "Llama",
    "Qwen2, Qwen2.5",
    "Qwen3",
    "Gemma",
    "GPT-2",
    "CodeGen",
    "Mistral, window",
    "Falcon, ALiBi",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the device is built for Linux"),
    pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has kernels for CUDA of its own"),
    pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler"),
]


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a process with the device, which is built once for all workers."""
    shared = tmp_path_factory.getbasetemp().parent / "simulated_cuda"
    shared.mkdir(exist_ok=True)
    with FileLock(shared / "lock"):
        return environment(build_device(shared))


def run(card: dict[str, str], *arguments: str) -> str:
    """What a Python program with the simulated device prints."""
    done = subprocess.run([sys.executable, *arguments], env=card, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_device_refuses_and_replays_what_a_card_does(card: dict[str, str]) -> None:
    run(card, "-m", "support.simulated_cuda.facts")


def numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """The metrics that are not times."""
    return {
        name: value for name, value in metrics.items() if not name.startswith("time/") and name != "seconds"
    }


def test_trainings_have_the_numbers_of_a_cpu(card: dict[str, str], tmp_path: Path) -> None:
    """Warmup and RL, every kind of decoder: the same answers, losses and gradients, up to rounding."""
    program = ("-m", "support.simulated_cuda.runs")
    found = {
        device: json.loads(run(card, *program, device, str(tmp_path / device)).splitlines()[-1])
        for device in ("cuda", "cpu")
    }
    assert found["cuda"].keys() == VARIANTS.keys()
    for name, there in found["cuda"].items():
        here = found["cpu"][name]
        close = {"rel": 0.01, "abs": 1e-3} if name in ROUNDED else {"rel": 1e-4, "abs": 1e-6}
        assert numbers(there["metrics"]) == pytest.approx(numbers(here["metrics"]), **close), name
        assert not [text for text in there["warnings"] if "graph" in text.lower()], name


def test_two_gpus_give_what_one_gives(card: dict[str, str], tmp_path: Path) -> None:
    """Also where weights, gradients and optimizer are split over them."""
    own = ["-c", "sokoban-tiny", *SETTINGS, "policy.device=auto", "train.groups=4"]
    program = ("-m", "repro_rl")
    run(card, *program, "demos", *own, "-o", str(tmp_path / "demos"))
    run(card, *program, "warmup", *own, "--demos", str(tmp_path / "demos"), "-o", str(tmp_path / "warm"))
    two = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    split = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    rows = {}
    for name, launcher, more in (("one", (), {}), ("two", two, {}), ("split", two, split)):
        init = ("--init", str(tmp_path / "warm" / "model"), "-o", str(tmp_path / name))
        run(card | more, *launcher, *program, "train", *own, *init)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        rows[name] = [numbers(json.loads(line)) for line in lines]
    assert len(rows["one"]) == 2
    for name in ("two", "split"):
        for one, other in zip(rows["one"], rows[name], strict=True):
            assert other == pytest.approx(one, rel=1e-4, abs=1e-5), name


def test_without_memory_a_run_says_what_to_lower_and_goes_on(card: dict[str, str], tmp_path: Path) -> None:
    done = run(card, "-m", "support.simulated_cuda.memory", str(tmp_path / "runs"))
    found = json.loads(done.splitlines()[-1])
    for phase, doing, setting in (
        ("warmup", "updating the weights", "Lower train.micro_tokens"),
        ("loading", r"moving .*warm/model to cuda", "Take a smaller model"),
        ("sampling", "sampling", "Lower policy.max_cache_tokens"),
        ("update", "updating the weights", "Lower train.micro_tokens"),
    ):
        words = rf"Out of memory while {doing}: CUDA out of memory\. Tried to allocate \d+ bytes.* {setting}"
        assert re.match(words, found[phase]), found[phase]
    assert found["iteration"] == 2
    (warning,) = found["warnings"]
    assert (
        "train continues with other settings of memory or kernels; results are equal but for rounding"
        in warning
    )
    assert "train.micro_tokens: 16384 there, 64 now" in warning


def test_families_sample_what_they_compute(card: dict[str, str], tmp_path: Path) -> None:
    program = ("-m", "support.simulated_cuda.families", str(tmp_path))
    found = json.loads(run(card, *program, *FAMILIES).splitlines()[-1])
    assert {name: checked["failed"] for name, checked in found.items()} == {name: [] for name in FAMILIES}
    assert max(max(checked["largest"]) for checked in found.values()) <= 1e-5
    graphed = {
        name for name, checked in found.items() if "decode steps as CUDA graphs" in checked["sampling"]
    }
    assert graphed == set(FAMILIES) - {"Mistral, window", "Falcon, ALiBi"}


def test_the_prepared_gpu_run_decodes_over_graphs(card: dict[str, str], tmp_path: Path) -> None:
    """benchmarks/gpu_run at toy size: all stages end, and every static cache has captured graphs."""
    folders = ("--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--minutes", "30")
    run(card, str(ROOT / "benchmarks" / "gpu_run"), "--toy", "--device", "cuda", *folders)
    content = json.loads((tmp_path / "out" / "gpu_run.json").read_text())
    assert content["card"]["name"] == "Simulated"
    stages = content["stages"]
    assert {stage["status"] for stage in stages.values()} == {"done"}
    exact, speed = stages["correctness"]["results"], stages["speed-toy"]["results"]
    for kind, limit in (("float32", 1e-5), ("bfloat16", 0.05), ("float32 under autocast", 0.05)):
        sampled, decoded = exact[f"sampler and trainer, {kind}"], exact[f"decoders, {kind}"]
        assert sampled["max_abs"] <= limit
        assert decoded["steps from Python"] == {"rows": 16, "equal_rows": 16, "max_abs": 0}
        for figures in (sampled, decoded):
            assert figures["graphs"] > 0
            assert figures["replayed_steps"] > 0
            assert figures["graphs_refused"] == ""
    for name in ("window", "chat", "window, cuDNN attention"):
        assert (speed[name]["graphs"] > 0, speed[name]["graphs_refused"]) == (True, "")
    assert speed["chat"]["graphs_while_timed"] == 0
    assert len(stages["train-repro"]["rows"]["iterations"]) == 5
