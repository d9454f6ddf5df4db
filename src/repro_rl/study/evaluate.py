"""Evaluation: any checkpoint or API model on a fixed, hashed panel, with intervals and progress quality."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from repro_rl.config import ApiSection, RunConfig, is_api
from repro_rl.demos.incontext import InContextDemos
from repro_rl.envs.panel import TaskPanel
from repro_rl.errors import ConfigError
from repro_rl.files import LOCK_FILE, only_writer, sweep_temporaries, write_json
from repro_rl.files.names import CONFIG_FILE, EVALUATIONS, TRAJECTORIES
from repro_rl.policy.base import Policy, PromptText
from repro_rl.policy.http import HttpPolicy, KeptAnswers
from repro_rl.policy.loading.checksums import fingerprint
from repro_rl.policy.loading.hub import is_hub_name
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.rollout import Actor, Judge, PlayOptions, trajectory_record
from repro_rl.rollout.act import NO_COMPLETION
from repro_rl.rollout.counts import causes, error_reasons, rollout_metrics
from repro_rl.rollout.record import episodes_file, write_records
from repro_rl.run.answer_length import answer_lengths, check_answers
from repro_rl.run.evaluations import CONDITIONS, evaluation_file, read_evaluation
from repro_rl.run.folder import computed_with, manifest, settings_beside, write_config, write_manifest
from repro_rl.run.panels import Use
from repro_rl.run.preflight import preflight, unknown_words
from repro_rl.run.setup import Setup, set_up
from repro_rl.run.validation import panel_requests
from repro_rl.study.progress import progress_quality
from repro_rl.study.stats import wilson
from repro_rl.study.task_types import success_by_type
from repro_rl.study.unfinished import UnfinishedEvaluation, evaluation_keys
from repro_rl.types import Trajectory

MAX_CAUSES = 20  # of broken episodes, that a result names


@dataclass(slots=True)
class EvalRequest:
    """What is evaluated, and where its result goes."""

    name: str  # of the result file
    iteration: int | None = None  # of the checkpoint, where it has one
    out: str | Path | None = None  # run folder for the result and the trajectories
    judge: bool = True  # also reflect, and measure progress quality
    demonstrations: InContextDemos | None = None  # to show in prompts
    again: bool = False  # play it although its result is there

    def __post_init__(self) -> None:
        """Raises ConfigError for a name that is no file name."""
        if not self.name or self.name.startswith(".") or set(self.name) & set("/\\"):
            raise ConfigError(f"The evaluation's name {self.name!r} must be a file name, such as 'last-hot'.")


@dataclass(slots=True)
class EvalHooks:
    """What a progress bar needs to know."""

    on_total: Callable[[int], None] | None = None  # called with the number of episodes
    on_done: Callable[[int], None] | None = None  # called with the number of those that have ended since
    on_finished: Callable[[Path], None] | None = None  # called with a result that was there
    on_resumed: Callable[[int], None] | None = None  # called with the number of episodes that were there


def evaluate(
    config: RunConfig,
    model: str | Path,
    request: EvalRequest,
    *,
    policy: Policy | None = None,
    hooks: EvalHooks | None = None,
) -> dict[str, Any]:
    """Play ``eval.tasks`` tasks of ``eval.split``, or those of ``eval.panel``, and judge every episode.

    ``model``: a model folder or hub name, or ``api:MODEL``. A call that an API leaves without an answer fails
    its episode, which counts as not won. When no call at all got a text, that is an ApiError and there is no
    result. ``policy``: that model, loaded already by who made the checks of ``preflight``; it is left open.
    Without it, what those remark on is warned of.

    Returns a mapping whose keys docs/evaluation.md explains. The main ones:

    - ``success``, ``low``, ``high``: share of episodes won, 0..1, with its Wilson interval
    - ``episodes``, ``won``: the counts; ``by_type``: success per task type, None without types
    - ``score``, ``length``, ``invalid_rate``, ``format_rate``, ``errors``: as in the log of a training
    - ``error_reasons``, ``unanswered``: episodes that broke off, by cause, and those that a server ended
    - ``panel``, ``digest``: label and digest of the tasks
    - ``progress``: for each reported series what ``progress_quality`` gives against ground truth
    - ``judge``: whose weights reflected, "policy" or "reference"
    - ``dtype``: precision in which the model computed; ``sampler``: device and engine, as in a manifest
    - ``text``: chat template, stop tokens and what else prompts depend on, as in a manifest
    - ``versions``: of this package, torch and transformers
    - ``changed``: the settings that are not those in ``out/config.yaml``
    - ``demonstrations``: with demonstrations, the number of steps by what was shown

    The same is written to ``out/eval/<name>.json``, trajectories beside it. Episodes are kept as they end, so
    that a call that was stopped goes on after them.
    The result of a local model that is there, made with the same weights and settings, is returned as it is.
    Episodes in another precision are neither continued nor replaced (ConfigError).
    Raises what ``preflight`` raises, CheckpointError when the model cannot be loaded, and PreflightError when
    another process writes this result. Where ``out`` cannot be written, it raises OSError before anything is
    played. Raises ApiError and BudgetError.
    """
    model, hooks = Path(model), hooks or EvalHooks()
    with ExitStack() as stack:
        setup = stack.enter_context(closing(set_up(config)))
        if policy is None:
            for line in preflight(config, setup.pool.first, {Use.EVAL}, model=model):
                if setup.ranks.first:
                    warnings.warn(line, stacklevel=2)
        panel, unfinished, key = setup.eval_panel(), None, ""
        out, name = None if request.out is None else Path(request.out), request.name
        if out is not None:
            now = {**_settings_of(setup, panel), **_model_of(config.api.base_url, model, out)}
            setup.ranks.on_first(lambda: _check_free(out, name, now))
            writing = partial(_writing, out, name)
            stack.enter_context(setup.ranks.alone_on_first(writing))
            keys = evaluation_keys(config, model, panel.digest, request.judge, request.demonstrations)
            key = keys[0]
            look = not (request.again or is_api(model))
            done = setup.ranks.on_first(lambda: _finished(out, name, keys) if look else None)
            if done is not None:
                if hooks.on_finished is not None:
                    hooks.on_finished(evaluation_file(out, name))
                return done
        if policy is None:
            policy = stack.enter_context(closing(setup.agent(model, reflects=request.judge)))
        if out is not None:
            dtype = _described(policy).get("dtype", "")
            setup.ranks.on_first(lambda: _check_dtype(out, name, dtype))
            unfinished = UnfinishedEvaluation(out / TRAJECTORIES, name, key, setup.ranks.rank, dtype)
        if isinstance(policy, HttpPolicy):
            stack.enter_context(policy.client.part(_kept_answers(request, unfinished)))
        return _EvaluationRun(setup, model, policy, panel, request, hooks, unfinished).result()


def _check_free(out: Path, name: str, new: dict[str, Any]) -> None:
    """A result is replaced by one of the same model on the same tasks with the same sampling alone.

    ``new``: what this one's figures depend on; older results do not tell all of it. Raises ConfigError where
    ``out`` has another evaluation of this name, DataError where it is broken.
    """
    path = evaluation_file(out, name)
    if not path.exists():
        return
    old = read_evaluation(path)
    old = {**old, **(old.get("api") or {})}
    advice = "Give this one a name with --name, or delete that file."
    if any(key in old and old[key] != new[key] for key in CONDITIONS):
        raise ConfigError(
            f"{path} holds another evaluation: {_sampled(old)}; this one is {_sampled(new)}. {advice}"
        )
    for key in ("method", "context", "checkpoint", "base_url", "weights"):
        if key in old and key in new and old[key] != new[key]:
            raise ConfigError(
                f"{path} holds another evaluation: {key} {old[key]}; this one's is {new[key]}. {advice}"
            )


def _described(part: Policy | PromptText) -> dict[str, Any]:
    """What figures depend on in a policy (``Sampler.describe``) or a codec; {} of one that does not tell."""
    describe = getattr(part, "describe", None)
    return {} if describe is None else describe()


def _check_dtype(out: Path, name: str, dtype: str) -> None:
    """A result is replaced by one of the same precision alone; older results do not tell theirs.

    Raises ConfigError. It is known only of a loaded model: ``_check_free`` says everything else before.
    """
    path = evaluation_file(out, name)
    told = read_evaluation(path).get("dtype") if path.exists() else None
    if told and dtype and told != dtype:
        raise ConfigError(
            f"{path} holds another evaluation: dtype {told}; this one's is {dtype} (policy.dtype). Give this "
            "one a name with --name, or delete that file."
        )


def _model_of(base_url: str, model: Path, out: Path) -> dict[str, str]:
    """Which model a result is of; empty for a checkpoint of the run ``out``, which goes on training.

    ``base_url``: of the server of an API model.
    """
    if is_api(model):
        return {"checkpoint": str(model), "base_url": base_url}
    if is_hub_name(model):
        return {"checkpoint": str(model)}
    return {} if model.absolute().is_relative_to(out.absolute()) else {"weights": fingerprint(model)}


def _finished(out: Path, name: str, keys: Sequence[str]) -> dict[str, Any] | None:
    """The result ``name`` in ``out``, if a key (``evaluation_keys``) tells that it is of the same weights."""
    path = evaluation_file(out, name)
    if not (path.exists() and episodes_file(out, name).exists()):
        return None
    result = read_evaluation(path)
    return result if result.get("key") in keys else None


def _sampled(result: dict[str, Any]) -> str:
    """On what an evaluation was played, in words."""
    return (
        f"{result.get('panel') or result['digest']}, temperature {result.get('temperature')}, "
        f"rollouts a task: {result.get('rollouts_per_task')}, seed {result.get('seed')}, "
        f"max_steps {result.get('max_steps', 'unknown')}"
    )


@contextmanager
def _writing(out: Path, name: str) -> Iterator[None]:
    """Only one process makes the evaluation ``name`` in ``out``; others may train there meanwhile."""
    with only_writer(out / EVALUATIONS / f".{name}{LOCK_FILE}", "evaluation"):
        sweep_temporaries(out / EVALUATIONS, of=f"{name}.json")
        sweep_temporaries(out / TRAJECTORIES, of=episodes_file(out, name).name)
        yield


def _kept_answers(request: EvalRequest, unfinished: UnfinishedEvaluation | None) -> KeptAnswers | None:
    """What this evaluation had used of a server when it was interrupted; None where nothing is written."""
    if request.out is None or unfinished is None:
        return None
    path = Path(request.out) / TRAJECTORIES / f"eval-{request.name}.answers-unfinished.jsonl"
    return KeptAnswers(path, unfinished.key)


@dataclass(slots=True, frozen=True)
class _EvaluationRun:
    """One evaluation: a model, the panel that it plays, and where the result goes."""

    setup: Setup
    model: Path  # a model folder, a hub name or api:MODEL
    policy: Policy  # that model, loaded
    panel: TaskPanel
    request: EvalRequest
    hooks: EvalHooks
    unfinished: UnfinishedEvaluation | None  # of a result that is written

    def result(self) -> dict[str, Any]:
        """Play, judge and write, see ``evaluate``."""
        setup, request = self.setup, self.request
        config = setup.config
        out = None if request.out is None else Path(request.out)
        api = self.policy if isinstance(self.policy, HttpPolicy) else None
        if api is not None and setup.ranks.world > 1:
            raise ConfigError(
                "A model behind an API is evaluated by one process; see api.concurrency instead."
            )
        foreign = api is not None or is_hub_name(self.model)
        if foreign and out is not None and setup.ranks.first:
            _open_foreign_run(setup, out, self.model, self.panel)
        begin = time.perf_counter()
        codec = self.policy.codec
        known = codec if isinstance(codec, TextCodec) else None
        lengths = answer_lengths(setup.pool.first, self.panel.ids[0], setup.prompts, known)
        for line in check_answers(config.prompt.action_tokens, setup.prompts.fmt, lengths):
            if setup.ranks.first:
                warnings.warn(line, stacklevel=3)
        if known is not None:
            problem = unknown_words(setup.context(known), setup.prompts, known, self.panel.ids[0])
            if problem is not None and setup.ranks.first:
                warnings.warn(f"{problem} What it does here says little.", stacklevel=3)
        trajectories, judged_by = self._play()
        if api is not None:
            api.client.check()
        sampler = dict(_described(self.policy))
        records = [trajectory_record(t, request.iteration or 0) for t in trajectories]
        result = {
            "checkpoint": str(self.model) if foreign else self.model.name,
            "name": request.name,
            "iteration": request.iteration,
            "judge": judged_by,
            "key": None if self.unfinished is None else self.unfinished.key,
            "weights": fingerprint(self.model) or None,
            "dtype": sampler.pop("dtype", None),
            "sampler": sampler or None,
            "text": _described(self.policy.codec) or None,
            "versions": computed_with(),
            **_settings_of(setup, self.panel),
            "changed": {} if out is None else settings_beside(out, config),
            **_outcome(setup, trajectories),
            "progress": {which: progress_quality(records, which) for which in ("online", "retrospective")},
            "api": None if api is None else _usage(config.api, api),
            "seconds": round(time.perf_counter() - begin, 2),
        }
        if request.demonstrations is not None:
            once = setup.context(self.policy.codec).shows_once()
            result["demonstrations"] = request.demonstrations.count_steps(
                trajectories, setup.prompts, shown_once=once
            )
        if out is not None and setup.ranks.first:
            write_records(episodes_file(out, request.name), records)
            write_json(evaluation_file(out, request.name), result)
            if self.unfinished is not None:
                self.unfinished.remove()
        return result

    def _play(self) -> tuple[list[Trajectory], str]:
        """All episodes of the panel, shared between ranks, and whose weights judged them.

        Those in ``unfinished`` are not played again; the others are added to it.
        """
        setup, request, hooks = self.setup, self.request, self.hooks
        section = setup.config.eval
        context = setup.context(self.policy.codec)
        frozen = setup.frozen_judge(self.model) if request.judge else None
        actor = Actor(self.policy, setup.prompts, setup.action_sampling(section.temperature))
        judge = Judge(setup.reflection_sampling(section.temperature), frozen) if request.judge else None
        shown = request.demonstrations
        options = PlayOptions(
            stream=("panel", section.seed),
            demonstrations=None if shown is None else shown.texts(setup.prompts),
            on_done=hooks.on_done,
            on_episode=None if self.unfinished is None else self.unfinished.add,
        )
        kept = {} if self.unfinished is None else self.unfinished.begin()
        if kept and hooks.on_resumed is not None and setup.ranks.first:
            hooks.on_resumed(len(kept))
        if hooks.on_total is not None:
            hooks.on_total(len(setup.ranks.own_share(self.panel.ids)) * section.rollouts)

        def play(tasks: list[str]) -> list[Trajectory]:
            requests = panel_requests(tasks, section.rollouts)
            old = [kept[r.task_id, r.rollout] for r in requests if (r.task_id, r.rollout) in kept]
            if hooks.on_done is not None:
                hooks.on_done(len(old))
            waiting = [r for r in requests if (r.task_id, r.rollout) not in kept]
            played = iter(context.play(waiting, actor, judge, options) if waiting else ())
            unjudged = [t for t in old if t.steps and t.reflection is None]
            if judge is not None and unjudged:
                context.reflect_on(unjudged, actor, judge, options)
            return [kept.get((r.task_id, r.rollout)) or next(played) for r in requests]

        try:
            trajectories = setup.ranks.play_tasks(self.panel.ids, play, prompts=True)
        finally:
            if self.unfinished is not None:
                self.unfinished.close()
        return trajectories, "policy" if frozen is None else "reference"


def _settings_of(setup: Setup, panel: TaskPanel) -> dict[str, Any]:
    """What a figure depends on."""
    config, section = setup.config, setup.config.eval
    return {
        "method": config.method.name,
        "context": config.prompt.context,
        "run_seed": config.seed,
        "panel": panel.label(),
        "digest": panel.digest,
        "split": panel.split,
        "tasks": len(panel),
        "max_steps": setup.pool.first.max_steps,
        "rollouts_per_task": section.rollouts,
        "temperature": section.temperature,
        "seed": section.seed,
    }


def _outcome(setup: Setup, trajectories: list[Trajectory]) -> dict[str, Any]:
    """Success with its interval, also by task type, and the counts that explain it."""
    won = sum(t.won for t in trajectories)
    low, high = wilson(won, len(trajectories))
    metrics = rollout_metrics(trajectories)
    reasons = error_reasons(trajectories)
    by_type = success_by_type(((t.task_id, t.won) for t in trajectories), setup.pool.task_type)
    return {
        "episodes": len(trajectories),
        "won": won,
        "success": won / len(trajectories),
        "low": low,
        "high": high,
        "by_type": by_type or None,
        "error_reasons": dict(causes(reasons).most_common(MAX_CAUSES)),
        "unanswered": sum(count for reason, count in reasons.items() if reason.startswith(NO_COMPLETION)),
        **{
            name: metrics[f"rollout/{name}"]
            for name in ("score", "length", "invalid_rate", "format_rate", "errors")
        },
    }


def _open_foreign_run(setup: Setup, out: Path, model: Path, panel: TaskPanel) -> None:
    """The run folder of a model behind an API or on the hub, which nothing else makes."""
    if (out / CONFIG_FILE).exists():
        return
    config = setup.config
    content = manifest(
        config,
        "evaluation",
        agent=str(model),
        panels={panel.split: panel.manifest()},
        environment=setup.pool.describe(),
    )
    write_manifest(out, content)
    # last: its presence tells that the folder is ready
    write_config(out, config)


def _usage(section: ApiSection, policy: HttpPolicy) -> dict[str, Any]:
    return {"base_url": section.base_url, **policy.client.spending.part_summary()}
