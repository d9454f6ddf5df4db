"""Short measurements on this machine: small iterations of a small model, or the rates of a large one."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repro_rl.config import RunConfig
from repro_rl.errors import PreflightError
from repro_rl.plan.hours import Rates
from repro_rl.plan.network import Network

SMALL_MODEL = 5_000_000  # parameters below which whole small iterations are played
PROBE_WIDTH, PROBE_CONTEXT = 256, 128  # tokens
STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Played:
    """Iterations with fewer groups, and what they say about one with all of them."""

    groups: tuple[int, int]
    seconds: tuple[float, float]
    memory: tuple[float, float]  # peak bytes of the process
    tokens: tuple[float, float]  # mean completion of a step; mean steps of an episode

    def at(self, groups: int) -> tuple[float, float]:
        """(Seconds, peak bytes) of an iteration with ``groups`` groups: the straight line through both."""
        low, high = self.groups
        share = (groups - low) / (high - low)
        lines = (self.seconds, self.memory)
        seconds, memory = (
            first + share * max(second - first, 0.0) for first, second in (tuple(line) for line in lines)
        )
        return seconds, memory


def clock() -> float:
    """Seconds. With one thread on a CPU those of the processor: others may use this machine at the time."""
    import torch

    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    return time.process_time() if alone else time.perf_counter()


def memory_now() -> float:
    """Bytes this process holds; its peak where the system does not tell."""
    return _status("VmRSS") or memory_peak()


def memory_peak() -> float:
    """Most bytes this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM") or float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _status(name: str) -> float:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return 0.0
    found = next((line for line in lines if line.startswith(name + ":")), None)
    return 1024.0 * float(found.split()[1]) if found else 0.0


def play_small(config: RunConfig, say: Callable[[str], None]) -> Played | None:
    """Training iterations with a quarter and with half of the groups.

    None where the run has too few groups for that. The model of ``train.init`` is read, never written.
    """
    train = config.train
    low = train.minibatches * max(1, train.groups // (4 * train.minibatches))
    high = 2 * low
    if high > train.groups:
        return None
    seconds, memory, tokens = [], [], (0.0, 0.0)
    for groups in (low, high):
        part = config.model_copy(deep=True)
        part.train.groups, part.train.record_every, part.train.eval_every = groups, 0, 0
        if part.method.rehearses and not _demos_there(config):
            part.method.rehearsal = 0
        # A process of its own: what this one holds would count as the run's memory.
        done = subprocess.run(
            [sys.executable, "-m", "repro_rl.plan.play_part"],
            input=part.model_dump_json(),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        if done.returncode:
            raise PreflightError(f"The probe failed: {(done.stderr.strip() or 'killed').splitlines()[-1]}")
        row = json.loads(done.stdout.splitlines()[-1])
        seconds.append(row["seconds"])
        memory.append(row["memory"])
        tokens = (row["tokens"], row["length"])
        say(f"probe: an iteration of {groups} groups took {seconds[-1]:.2f} s")
    return Played((low, high), (seconds[0], seconds[1]), (memory[0], memory[1]), tokens)


def _demos_there(config: RunConfig) -> bool:
    from repro_rl.train.rehearsal import demos_of

    try:
        return demos_of(config).exists()
    except PreflightError:
        return False


def measure_rates(config: RunConfig, policy: Any, net: Network, say: Callable[[str], None]) -> Rates:
    """FLOP/s of training and of passes without gradient, and seconds of single-token passes."""
    import torch
    from transformers import DynamicCache

    from repro_rl.train.batch import collate
    from repro_rl.train.loss import imitation_loss
    from repro_rl.train.optimizers import build_optimizer
    from repro_rl.train.warmup import imitation_row

    model, device = policy.model, policy.device
    rng = np.random.default_rng(0)
    ids = tuple(int(i) for i in rng.integers(net.vocab, size=PROBE_WIDTH))
    answer = PROBE_WIDTH // 16
    row = imitation_row(ids[:-answer], ids[-answer:], "forward")
    batch = collate([row], {"forward": 1.0}, policy.pad_id, device)

    def timed(work: Callable[[], Any], repeat: int = 2) -> float:
        """The shortest of ``repeat`` runs after one that is not counted."""
        best = float("inf")
        for attempt in range(repeat + 1):
            if device.type == "cuda":
                torch.cuda.synchronize()
            begin = clock()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if attempt:
                best = min(best, clock() - begin)
        return best

    def train() -> None:
        with policy.precision():
            imitation_loss(model, batch).backward()  # type: ignore[no-untyped-call]

    def read() -> None:
        with torch.no_grad(), policy.precision():
            model(input_ids=batch.ids, use_cache=False, logits_to_keep=1)

    model.train()
    train_seconds = timed(train)
    model.zero_grad(set_to_none=True)
    model.eval()
    read_seconds = timed(read)
    passes = {}
    for rows in (1, 8):
        cache = DynamicCache(config=model.config)
        with torch.no_grad(), policy.precision():
            start = torch.randint(net.vocab, (rows, PROBE_CONTEXT), device=device)
            model(input_ids=start, past_key_values=cache, use_cache=True, logits_to_keep=1)

            def one_token(cache: Any = cache, start: torch.Tensor = start) -> None:
                model(input_ids=start[:, :1], past_key_values=cache, use_cache=True, logits_to_keep=1)

            passes[rows] = timed(one_token, repeat=3)
    size = 4_000_000
    weights = torch.nn.Linear(2000, size // 2000, bias=False, device=device)
    optimizer = build_optimizer(
        config.train.optimizer, weights, lr=1e-6, betas=config.train.betas, weight_decay=0.0
    )
    weights.weight.grad = torch.ones_like(weights.weight)
    stepping = timed(optimizer.step) / size
    forward = net.forward_flops(PROBE_WIDTH, PROBE_WIDTH / 2, answer)
    backward = 2.0 if config.policy.lora.rank else 3.0
    extra = net.forward_flops(PROBE_WIDTH, PROBE_WIDTH / 2, 0) if config.train.gradient_checkpointing else 0.0
    rates = Rates(
        train=(backward * forward + extra) / train_seconds,
        prefill=net.forward_flops(PROBE_WIDTH, PROBE_WIDTH / 2, 1) / read_seconds,
        decode_pass=passes[1],
        decode_row=max(passes[8] - passes[1], 0.0) / 7,
        weight_step=stepping,
    )
    say(
        f"probe: {rates.train / 1e9:.1f} GFLOP/s training, {rates.prefill / 1e9:.1f} reading, "
        f"{1e3 * rates.decode_pass:.0f} ms a token"
    )
    return rates
