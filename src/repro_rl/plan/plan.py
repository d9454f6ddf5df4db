"""The plan of a run: what it reads and writes, what it needs, how long it takes, and what was assumed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from repro_rl.config import RunConfig
from repro_rl.plan.devices import Device
from repro_rl.plan.hours import Seconds, by_rates, on_device
from repro_rl.plan.memory import memory_parts, peak
from repro_rl.plan.network import Network, network_of
from repro_rl.plan.probe import SMALL_MODEL, Played, measure_rates, memory_now, play_small
from repro_rl.plan.tokens import TokenTable, count_tokens
from repro_rl.plan.workload import Workload, workload_of
from repro_rl.policy.encode import plain_ids
from repro_rl.train.build import build_pool, build_prompts, initial_model, load_policy, tiny_words
from repro_rl.train.contexts import need_window
from repro_rl.types import Ids

CHARACTERS = 3.6  # of our full prompts for one Qwen token, where no tokenizer is at hand


@dataclass(slots=True)
class Estimate:
    """Of one device. Seconds are of one iteration."""

    device: str
    room: float | None  # bytes it has; None: not known
    parts: dict[str, float]
    peak: float
    seconds: Seconds | None
    iteration: float
    validation: float  # seconds of one validation
    hours: float  # of the whole run, without the warmup

    @property
    def fits(self) -> bool:
        return self.room is None or self.peak <= 0.95 * self.room


@dataclass(slots=True)
class Plan:
    net: Network
    table: TokenTable
    work: Workload
    estimates: list[Estimate] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Counter:
    """Encodes prompts as the policy will, without a model."""

    tokenizer: Any  # None: counts characters
    chat: bool
    thinking: bool

    def prompt(self, text: str) -> Ids:
        if self.tokenizer is not None and self.chat:
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": text}],
                add_generation_prompt=True,
                tokenize=False,
                enable_thinking=self.thinking,
            )
        return self.target(text)

    def target(self, text: str) -> Ids:
        if self.tokenizer is None:
            return (0,) * round(len(text) / CHARACTERS)
        return plain_ids(self.tokenizer, text)


def find_counter(config: RunConfig, given: Path | None, notes: list[str]) -> Counter:
    """The tokenizer of ``given``, of the model's folder, or of the hub's cache; else characters."""
    from transformers import AutoTokenizer

    tokenizer: Any = None
    for place in (given, config.train.init, config.policy.model):
        if place is None or str(place) == "tiny":
            continue
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(place), local_files_only=True)
            break
        except Exception:  # not there: each of its libraries raises its own
            if place is given:
                raise
    if tokenizer is None:
        notes.append(
            f"No tokenizer at hand: {CHARACTERS} characters are taken for a token. Better: --tokenizer "
            "FOLDER, made by 'repro-rl data qwen-tokenizer'."
        )
    chat = config.policy.chat != "off" and bool(getattr(tokenizer, "chat_template", None))
    return Counter(tokenizer, chat, config.policy.thinking)


def make_plan(
    config: RunConfig,
    devices: Sequence[Device],
    *,
    probe: bool = False,
    tokenizer: Path | None = None,
    tasks: int = 12,
    completion: float | None = None,
    reflect_completion: float | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Plan ``config`` for ``devices``; ``probe``: also measure on this machine and plan for it.

    ``tasks``: played three times each to count tokens. ``completion`` and ``reflect_completion``: mean
    lengths, where they are known. Raises ConfigError where the model's shape is unknown.
    """
    need_window(config, "The plan")
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        pool = build_pool(config)
        env, prompts = pool.first, build_prompts(config)
        untrained = config.policy.model == "tiny" and config.train.init is None
        if untrained:
            config = config.model_copy(deep=True)
            config.train.init = str(initial_model(config, env, (), Path(folder) / "tiny"))
            notes.append("No train.init: planned with an untrained model, whose episodes are the longest.")
        words = len(tiny_words(config, env)) + 3 if config.policy.model == "tiny" else None
        net = network_of(config, words)
        if untrained:
            net = replace(net, name="tiny, untrained")
        counter = find_counter(config, tokenizer, notes)
        panel = env.panel(config.train.split).ids
        chosen = panel[:: max(1, len(panel) // tasks)][:tasks]
        table = count_tokens(env, chosen, prompts, counter.prompt, counter.target, seed=config.seed)
        instructions = len(counter.prompt(env.instructions)) if config.prompt.style == "full" else 0
        work = workload_of(
            config, table, shared=instructions, completion=completion, reflect_completion=reflect_completion
        )
        if completion is None and config.prompt.style == "full" and config.prompt.think != "off":
            notes.append(
                f"Completions are taken for {work.completion:.0f} and reflections for "
                f"{work.reflect_completion:.0f} tokens: half their limits, since thoughts are allowed. "
                "--completion and --reflect-completion replace that."
            )
        plan = Plan(net, table, work, notes=notes)
        for device in devices:
            parts = memory_parts(config, net, work, gpu=True)
            seconds = on_device(config, net, work, device)
            plan.estimates.append(
                _estimate(config, work, device.name, device.memory, parts, peak(parts), seconds)
            )
        if devices:
            first = devices[0]
            notes.append(
                f"GPU hours assume {first.train_share:.0%} of the peak FLOP/s in training, "
                f"{first.prefill_share:.0%} in reading, {first.decode_share:.0%} of the bandwidth and at "
                f"least {1e3 * first.launch:.1f} ms a layer in generation; no GPU was measured by us."
            )
        if probe:
            plan.estimates.append(_measured(config, plan, say))
    return plan


def _estimate(
    config: RunConfig,
    work: Workload,
    name: str,
    room: float | None,
    parts: dict[str, float],
    most: float,
    seconds: Seconds,
) -> Estimate:
    share = work.forward_rows * (work.prompt + work.completion)
    share /= work.prompt_tokens + work.completion_tokens
    validation = seconds.rollout * share * config.eval.validation_tasks / work.episodes
    return Estimate(
        name,
        room,
        parts,
        most,
        seconds,
        seconds.total,
        validation,
        _hours(config, work, seconds.total, validation),
    )


def _hours(config: RunConfig, work: Workload, iteration: float, validation: float) -> float:
    train = config.train
    count = float(train.iterations)
    if train.env_steps is not None:
        count = min(count, train.env_steps / max(work.forward_rows, 1.0))
    checks = count / train.eval_every if train.eval_every else 0.0
    return (count * iteration + checks * validation) / 3600


def _measured(config: RunConfig, plan: Plan, say: Callable[[str], None]) -> Estimate:
    """On this machine: small iterations of a small model, else rates and the FLOP model."""
    import torch

    from repro_rl.policy.transformers_policy import resolve_device

    gpu = resolve_device(config.policy.device) != "cpu"
    name = f"this machine ({torch.cuda.get_device_name(0) if gpu else 'CPU'}, measured)"
    played: Played | None = None
    if plan.net.parameters < SMALL_MODEL and not gpu:
        played = play_small(config, say)
    if played is not None:
        seconds, memory = played.at(config.train.groups)
        validation = 0.5 * seconds * config.eval.validation_tasks / plan.work.episodes
        plan.notes.append(
            f"Measured with {played.groups[0]} and {played.groups[1]} of {config.train.groups} groups and "
            "continued as a straight line; a validation is taken for half an iteration's time an episode."
        )
        hours = _hours(config, plan.work, seconds, validation)
        return Estimate(name, None, {}, memory, None, seconds, validation, hours)
    base = memory_now()
    model = config.train.init or config.policy.model
    policy = load_policy(config, model, training=True)
    rates = measure_rates(config, policy, plan.net, say)
    parts = memory_parts(config, plan.net, plan.work, gpu=gpu)
    if not gpu:
        parts = {"this program": base, **parts}
    room = float(torch.cuda.get_device_properties(0).total_memory) if gpu else None
    seconds_by = by_rates(config, plan.net, plan.work, rates)
    return _estimate(config, plan.work, name, room, parts, peak(parts), seconds_by)
