"""From settings to a plan: tokens, memory and time of a run, and what was assumed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from repro_rl.config import RunConfig
from repro_rl.errors import PreflightError
from repro_rl.plan.conversations import conversation_work
from repro_rl.plan.devices import Device
from repro_rl.plan.estimate import Estimate, RunOutline, estimate_on_device
from repro_rl.plan.model_shape import model_shape
from repro_rl.plan.probe import probe_estimate
from repro_rl.plan.tokens import CHARACTERS, CharacterCodec, TokenTable, count_tokens, find_codec
from repro_rl.plan.training_setup import training_setup
from repro_rl.plan.workload import KnownLengths, Workload, iteration_work
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.run.answer_length import AnswerLengths, answer_lengths, check_answers
from repro_rl.run.panels import training_uses
from repro_rl.run.preflight import preflight
from repro_rl.run.setup import set_up
from repro_rl.text.parse import TextFormat

SPECIAL_TOKENS = 3  # of the tiny model's tokenizer
UNTRAINED = "No train.init: planned with an untrained model, whose episodes are the longest."
NO_TOKENIZER = (
    f"No tokenizer at hand: {CHARACTERS} characters are taken for a token. Better: --tokenizer FOLDER, the "
    "model's own, or for a Qwen model one that 'repro-rl data qwen-tokenizer' made."
)


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What a plan is told beside the settings of the run."""

    probe: bool = False  # also measure on this machine, and plan for it
    tokenizer: Path | None = None  # its folder; None: the model's, where it is here
    tasks: int = 12  # whose episodes are counted, three of each
    lengths: KnownLengths = field(default_factory=KnownLengths)  # of completions


@dataclass(slots=True)
class Plan:
    """What a run reads and writes, and what it costs on each device."""

    run: RunOutline
    table: TokenTable
    estimates: list[Estimate]  # the probed machine last
    notes: list[str]  # what was assumed


def make_plan(
    config: RunConfig,
    devices: Sequence[Device],
    options: PlanOptions = PlanOptions(),
    log: Callable[[str], None] = lambda line: None,
) -> Plan:
    """Plan ``config`` for ``devices``; ``log`` gets a line for every measurement of a probe.

    Raises ConfigError where the model's shape is unknown, and what ``preflight`` raises.
    """
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as folder, closing(set_up(config)) as setup:
        env = setup.pool.first
        checked = preflight(config, env, training_uses(config.train), model=config.train.init)
        untrained = config.policy.model == "tiny" and config.train.init is None
        if untrained:
            config = config.model_copy(deep=True)
            config.train.init = str(setup.initial_model((), Path(folder) / "tiny"))
            notes.append(UNTRAINED)
        policy, train = config.policy, config.train
        words = len(setup.tiny_words()) + SPECIAL_TOKENS if policy.model == "tiny" else None
        shape = model_shape(policy, train.init, words)
        models = (train.init, policy.model)
        codec, unusable = find_codec(options.tokenizer, models, policy.chat, policy.thinking)
        notes += unusable
        if codec is None:
            notes.append(NO_TOKENIZER)
        notes += checked
        known = codec if isinstance(codec, TextCodec) else None
        tasks = _sample(setup.panel(train.split).ids, options.tasks)
        notes += _answer_notes(
            config.prompt.action_tokens,
            setup.prompts.fmt,
            answer_lengths(env, tasks[0], setup.prompts, known),
        )
        chat = config.prompt.context == "chat"
        table = count_tokens(
            env,
            tasks,
            setup.prompts,
            codec or CharacterCodec(),
            chat=chat,
            seed=config.seed,
        )
        if chat:
            work = conversation_work(table, config.prompt, policy, train, config.method, options.lengths)
        else:
            work = iteration_work(
                table, config.prompt, train, config.method, policy.max_batch_tokens, options.lengths
            )
        if config.prompt.thinks and options.lengths.action is None:
            notes.append(_assumed_lengths(work))
        run = RunOutline(
            replace(shape, name="tiny, untrained") if untrained else shape,
            work,
            training_setup(policy, train, config.needs_reference),
            train,
            config.eval.validation_tasks,
        )
        estimates = [estimate_on_device(run, device) for device in devices]
        if devices:
            notes.append(_assumed_shares(devices[0]))
        if options.probe:
            estimate, more = probe_estimate(run, config, log)
            estimates.append(estimate)
            notes += more
    return Plan(run, table, estimates, notes)


def _sample(tasks: Sequence[str], count: int) -> Sequence[str]:
    """``count`` of the tasks, evenly spaced; all where there are fewer."""
    return tasks[:: max(1, len(tasks) // count)][:count]


def _answer_notes(limit: int, fmt: TextFormat, found: AnswerLengths | None) -> list[str]:
    """What is wrong with ``prompt.action_tokens``; a plan says so where a training refuses."""
    try:
        return check_answers(limit, fmt, found)
    except PreflightError as error:
        return [f"{error} 'repro-rl train' refuses this."]


def _assumed_lengths(work: Workload) -> str:
    return (
        f"Completions are taken for {work.completion:.0f} and reflections for "
        f"{work.reflect_completion:.0f} tokens: half their limits, since thoughts are allowed. "
        "--completion and --reflect-completion replace that."
    )


def _assumed_shares(device: Device) -> str:
    return (
        f"GPU hours assume {device.train_share:.0%} of the peak FLOP/s in training, "
        f"{device.prefill_share:.0%} in prefill, {device.decode_share:.0%} of the bandwidth and at "
        f"least {1e3 * device.layer_latency:.1f} ms a layer in decoding; no GPU was measured by us."
    )
