"""Stage 1, Retrospection Warmup: joint supervised training on forward and reflection samples (METHOD).

It teaches the formats and starts stage 2; it is stopped before the policy becomes deterministic (MICRO: an
over-trained warm start leaves most task groups without any signal).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from repro_rl.config import RunConfig
from repro_rl.demos.incontext import Labels, Shelf, mode_labels
from repro_rl.demos.store import labels_of, load_demos
from repro_rl.errors import PreflightError
from repro_rl.files import write_folder
from repro_rl.policy import Policy, TransformersPolicy
from repro_rl.random_streams import name_key
from repro_rl.rollout import EnvPool
from repro_rl.rollout.counts import success_rate
from repro_rl.rollout.fit import fitting_prompt
from repro_rl.rollout.reflect import fitting_reflection
from repro_rl.text.prompts import PromptBuilder
from repro_rl.train.batch import Row, collate, split_rows
from repro_rl.train.build import (
    build_pool,
    build_prompts,
    forward_sampling,
    initial_model,
    load_policy,
    prompt_limit,
    seed_dropout,
    set_threads,
    validation_panel,
)
from repro_rl.train.chat_warmup import ChatDemos
from repro_rl.train.checkpoint import latest, load_optimizer, optimizer_tensors, prune, save_checkpoint
from repro_rl.train.contexts import check_context, is_chat, panel_jobs, play_jobs
from repro_rl.train.loss import imitation_loss
from repro_rl.train.optimizers import build_optimizer
from repro_rl.train.parallel import ALONE, Ranks, join
from repro_rl.train.preflight import check_target, check_thinking
from repro_rl.train.run_folder import MetricsLog, manifest, open_run, write_manifest
from repro_rl.train.sharded import copy_weights
from repro_rl.types import Ids, Trajectory

T = TypeVar("T")
OnRow = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class WarmupData:
    """Rows to imitate: forward samples of expert episodes, reflections on won and on lost episodes."""

    forward: list[Row]
    won: list[Row]
    lost: list[Row]


def imitation_row(prompt: Ids, target: Ids, kind: str) -> Row:
    """A row that trains on ``target`` after ``prompt``."""
    ids = np.array((*prompt, *target), dtype=np.int64)
    trained = np.zeros(len(ids), dtype=np.bool_)
    trained[len(prompt) :] = True
    zeros = np.zeros(len(ids), dtype=np.float32)
    return Row(ids=ids, trained=trained, positive=zeros, negative=zeros, logprob=zeros, count=1, kind=kind)


def forward_rows(
    trajectory: Trajectory,
    policy: TransformersPolicy,
    prompts: PromptBuilder,
    env: Any,
    shelf: Shelf | None = None,
    limit: int = sys.maxsize,
) -> list[Row]:
    """One row a step: the prompt the agent would see, and the demonstrated completion.

    ``shelf``: prompts show demonstrations from it, as many as fit into ``limit`` tokens.
    """
    rows = []
    shown = [""]
    if shelf is not None:
        first = trajectory.steps[0].observation
        shown = shelf.texts(prompts)(trajectory.task_id, trajectory.goal, first)
    history: list[tuple[str, str]] = []
    admissible: list[str] = []
    _, info = env.reset(options={"task": trajectory.task_id})
    for step in trajectory.steps:
        admissible = info["admissible"]
        prompt = fitting_prompt(
            policy,
            prompts,
            limit,
            shown,
            history,
            instructions=env.instructions,
            goal=trajectory.goal,
            observation=step.observation,
            admissible=admissible,
            step=step.t,
            max_steps=env.max_steps,
        )
        if prompt is None:
            raise PreflightError(
                f"The prompt of step {step.t} of {trajectory.task_id} has more than {limit} tokens; raise "
                "prompt.max_prompt_tokens."
            )
        target = prompts.render_forward_target(step.online, step.action)
        rows.append(imitation_row(policy.encode(prompt.text), policy.encode_target(target), "forward"))
        history.append((step.observation, step.action))
        _, _, _, _, info = env.step(step.action)
    return rows


def reflection_row(
    trajectory: Trajectory,
    policy: TransformersPolicy,
    prompts: PromptBuilder,
    instructions: str,
    limit: int = sys.maxsize,
) -> Row:
    """The trajectory with its outcome, shortened like in RL where it needs to be, and the annotated values.

    ``limit``: tokens of the prompt.
    """
    values = labels_of(trajectory)
    prompt = fitting_reflection(trajectory, policy, prompts, instructions, limit)
    if prompt is None:
        raise PreflightError(
            f"The reflection prompt of {trajectory.task_id} has more than {limit} tokens; raise "
            "prompt.max_reflect_tokens."
        )
    target = prompts.render_reflection_target(values)
    return imitation_row(policy.encode(prompt[0]), policy.encode_target(target), "reflect")


def is_labelled(trajectory: Trajectory) -> bool:
    """False for an episode that its annotator left without labels, naming why."""
    reflection = trajectory.reflection
    return reflection is None or reflection.values is not None or not reflection.defects


def warmup_data(
    config: RunConfig,
    policy: TransformersPolicy,
    pool: EnvPool,
    experts: Sequence[Trajectory],
    labelled: Sequence[Trajectory],
) -> WarmupData:
    """Encode everything once. Raises PreflightError when a completion limit is shorter than a target.

    Unlabelled episodes are left out where labels are taught: in reflections and in prompts with progress.
    """
    env = pool.first
    if is_chat(config):
        return _chat_data(config, policy, env, experts, labelled)
    data = WarmupData([], [], [])
    for mode in config.warmup.forward_modes:
        prompts = build_prompts(config, progress=mode == "progress")
        labels, limit = mode_labels(mode), config.prompt.max_prompt_tokens
        shelf = None
        if labels is not None:
            shelf = _shelf(config, experts, labels, env)
            limit = prompt_limit(config, policy)
        for trajectory in filter(is_labelled, experts) if mode == "progress" else experts:
            data.forward += forward_rows(trajectory, policy, prompts, env, shelf, limit)
    prompts = build_prompts(config, progress=True)
    for trajectory in filter(is_labelled, (*experts, *labelled)):
        limit = config.prompt.max_reflect_tokens
        row = reflection_row(trajectory, policy, prompts, env.instructions, limit)
        (data.won if trajectory.won else data.lost).append(row)
    for rows, limit, name in (
        (data.forward, config.prompt.action_tokens, "prompt.action_tokens"),
        (data.won + data.lost, config.prompt.reflect_new_tokens, "prompt.reflect_new_tokens"),
    ):
        check_target(name, limit, max((int(row.trained.sum()) for row in rows), default=0))
    positions = policy.positions
    longest = max((len(row.ids) for row in (*data.forward, *data.won, *data.lost)), default=0)
    if positions and longest > positions:
        raise PreflightError(f"A demonstration has {longest} tokens, the model has {positions} positions.")
    return data


def _shelf(config: RunConfig, experts: Sequence[Trajectory], labels: Labels, env: Any) -> Shelf:
    count = config.prompt.demonstrations
    return Shelf(experts, labels, count=count, seed=config.seed, task_type=env.task_type)


def _chat_data(
    config: RunConfig,
    policy: TransformersPolicy,
    env: Any,
    experts: Sequence[Trajectory],
    labelled: Sequence[Trajectory],
) -> WarmupData:
    """As ``warmup_data``: one conversation a row.

    Reflections follow answers with and without progress in turn, as far as both are taught.
    """
    data, demos = WarmupData([], [], []), ChatDemos(config, policy, env)
    for mode in config.warmup.forward_modes:
        prompts = build_prompts(config, progress=mode == "progress")
        labels = mode_labels(mode)
        shelf = None if labels is None else _shelf(config, experts, labels, env)
        for trajectory in filter(is_labelled, experts) if mode == "progress" else experts:
            shown = [""]
            if shelf is not None:
                first = trajectory.steps[0].observation
                shown = shelf.texts(prompts)(trajectory.task_id, trajectory.goal, first)
            data.forward.append(demos.forward(trajectory, prompts, shown))
    taught = sorted({mode == "progress" for mode in config.warmup.forward_modes}) or [True]
    builders = [build_prompts(config, progress=progress) for progress in taught]
    for number, trajectory in enumerate(filter(is_labelled, (*experts, *labelled))):
        row = demos.reflection(trajectory, builders[number % len(builders)], config.seed, number)
        (data.won if trajectory.won else data.lost).append(row)
    return data


def draw(data: WarmupData, config: RunConfig, update: int, with_forward: bool) -> list[Row]:
    """The rows of one update: forward samples, and reflections half on won, half on lost episodes."""
    rng = np.random.default_rng(name_key(config.seed, "warmup", update))
    section = config.warmup
    rows = _drawn(data.forward, section.forward_batch if with_forward else 0, rng)
    return rows + draw_halves(data.won, data.lost, section.reflect_batch, rng)


def draw_halves(won: Sequence[T], lost: Sequence[T], count: int, rng: np.random.Generator) -> list[T]:
    """``count`` items with replacement, half of each kind, or all of one where there is no other."""
    half = count // 2
    first = _drawn(won, half if lost else count, rng)
    return first + _drawn(lost, count - half if won else count, rng)


def _drawn(pool: Sequence[T], count: int, rng: np.random.Generator) -> list[T]:
    return [pool[i] for i in rng.integers(len(pool), size=count)] if pool and count else []


def run_warmup(config: RunConfig, demos: Path, out: Path, on_row: OnRow | None = None) -> Path:
    """Train and write ``out/model``. Continues a killed run; a finished one is returned as it is.

    Started in several processes (see ``parallel``), each computes a share of every gradient.
    """
    set_threads(config)
    ranks = join(config)
    with ranks.guard():
        return _run_warmup(config, demos, out, on_row, ranks)


def _run_warmup(config: RunConfig, demos: Path, out: Path, on_row: OnRow | None, ranks: Ranks) -> Path:
    resumed = ranks.by_first(lambda: open_run(out, config, free=("train.peer_timeout",)))
    experts, labelled = load_demos(demos)
    pool = build_pool(config)
    start = ranks.by_first(lambda: initial_model(config, pool.first, (*experts, *labelled), out / "initial"))
    check_context(config, start)
    found = ranks.by_first(lambda: latest(out) if resumed else None)
    policy = load_policy(config, found[1] if found else start, training=True, resumed=found is not None)
    check_thinking(config, policy)
    data = warmup_data(config, policy, pool, experts, labelled)
    if not data.forward and not data.won and not data.lost:
        raise PreflightError(f"{demos} holds no demonstrations.")
    validation = validation_panel(config, pool)
    if ranks.first:
        write_manifest(
            out,
            manifest(
                config,
                processes=ranks.world,
                panels={"validation": validation.manifest()},
                environment=pool.first.describe(),
                demos=str(demos),
                rows={"forward": len(data.forward), "won": len(data.won), "lost": len(data.lost)},
                unlabelled=sum(not is_labelled(t) for t in (*experts, *labelled)),
                parameters=sum(p.numel() for p in policy.model.parameters()),
            ),
        )
    section = config.warmup
    trained = ranks.trained(policy.model)
    optimizer = build_optimizer(
        config.train.optimizer,
        trained,
        lr=section.lr,
        betas=(0.9, 0.99),
        weight_decay=section.weight_decay,
    )
    begin, stopped = 0, False
    if found:
        begin, stopped = found[0], bool(found[2]["stopped"])
        load_optimizer(found[1], optimizer)
    log = MetricsLog(out, begin) if ranks.first else None
    update = begin
    while update < section.updates and not stopped:
        update += 1
        decay = 1 - (1 - section.lr_end) * update / section.updates
        rate = section.lr * min(1.0, update / max(section.lr_warmup, 1)) * decay
        for group in optimizer.param_groups:
            group["lr"] = rate
        with_forward = update > section.forward_from
        row: dict[str, Any] = {"iteration": update, "warmup/lr": rate}
        seed_dropout(config, "warmup", update, *ranks.names)
        row |= _imitate(policy, trained, optimizer, draw(data, config, update, with_forward), config, ranks)
        if section.target_success is not None and with_forward and update % section.check_every == 0:
            progress = "progress" in section.forward_modes
            reached = validation_success(config, policy, pool, progress, ranks)
            row["eval/success"] = reached
            stopped = reached >= section.target_success
        if log is not None:
            log.add(row)
        if on_row is not None and ranks.first:
            on_row(row)
        if update % section.save_every == 0 or update == section.updates or stopped:
            with ranks.hold():
                ranks.check_same_weights(policy.model.parameters())
                tensors = optimizer_tensors(optimizer)
                if ranks.first:
                    folder = out / "checkpoints" / f"{update:05d}"
                    state = {"stopped": stopped, "context": config.prompt.context}
                    save_checkpoint(folder, policy, tensors, state)
                    prune(out, 1, None)

    def finish() -> None:
        if update > begin or not (out / "model" / "config.json").exists():
            write_folder(out / "model", policy.save_merged)

    ranks.by_first(finish)
    return out / "model"


def validation_success(
    config: RunConfig, policy: Policy, pool: EnvPool, progress: bool, ranks: Ranks = ALONE
) -> float:
    """Success on the validation panel at the validation temperature."""
    section = config.eval

    def play(tasks: list[str]) -> list[Trajectory]:
        return play_jobs(
            config,
            pool,
            panel_jobs(tasks, 1),
            policy,
            build_prompts(config, progress=progress),
            forward_sampling(config, section.validation_temperature),
            None,
            stream=("panel", section.seed),
        )

    return success_rate(ranks.over_tasks(validation_panel(config, pool).ids, play))


def _imitate(
    policy: TransformersPolicy,
    trained: Any,
    optimizer: torch.optim.Optimizer,
    rows: list[Row],
    config: RunConfig,
    ranks: Ranks,
) -> dict[str, float]:
    """One update on the sum of the mean losses (nats a token) of both kinds; returns each."""
    losses: dict[str, float] = {}
    trained.train()
    optimizer.zero_grad(set_to_none=True)
    for kind in ("forward", "reflect"):
        part = [row for row in rows if row.kind == kind]
        if not part:
            continue
        scale = {kind: 1 / sum(int(row.trained.sum()) for row in part)}
        total = 0.0
        chunks = split_rows(ranks.share_rows(part), config.train.micro_tokens)
        for chunk in ranks.even(chunks, kind):
            with policy.precision():
                batch = collate(chunk, scale, policy.pad_id, policy.device)
                loss = imitation_loss(trained, batch, policy.packed)
            (loss * ranks.loss_factor).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        losses[f"warmup/{kind}_loss"] = total
    losses = ranks.sums(losses)
    ranks.sum_gradients(trained.parameters())
    torch.nn.utils.clip_grad_norm_(trained.parameters(), config.warmup.grad_clip)
    optimizer.step()
    trained.eval()
    copy_weights(trained, policy.model)
    policy.weights_changed()
    return losses
