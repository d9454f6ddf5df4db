"""The paper's pilot study, by prompting alone: what does a progress estimate in the prompt do to success?

The conditions are the paper's, and one control (``plain``, decision D43). All play the same tasks with the
same random streams. docs/pilot.md explains every decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro_rl.config import RunConfig, WarmupSection, is_api
from repro_rl.config.changes import change_lines, differences
from repro_rl.demos.incontext import InContextDemos, mode_labels
from repro_rl.demos.store import demos_digest, load_demos
from repro_rl.errors import ConfigError, did_you_mean
from repro_rl.policy.base import Policy
from repro_rl.policy.http import HttpPolicy
from repro_rl.policy.http.identity import server_identity
from repro_rl.run.evaluations import evaluation_file, read_evaluation
from repro_rl.run.folder import (
    flatten,
    manifest,
    open_run,
    write_manifest,
)
from repro_rl.run.inputs import DEMOS_DIGEST, check_same_demos, check_same_panels
from repro_rl.run.lineage import check_context, taught_prompt
from repro_rl.run.model_paths import read_manifest
from repro_rl.run.panels import eval_panel
from repro_rl.run.setup import build_pool
from repro_rl.study.evaluate import EvalHooks, EvalRequest, evaluate
from repro_rl.types import Trajectory

# Settings of other commands, and of stages in the folder that have settings of their own.
FREE_ON_CONTINUE = ("train", "alarms", "demos", "warmup")
SERVER = "server"  # in manifest.json: what the answers of a model behind an API depend on


@dataclass(slots=True, frozen=True)
class Condition:
    """A way to prompt."""

    name: str
    mode: str  # its name in ``warmup.forward_modes``
    words: str  # what the prompt asks for, for tables


CONDITIONS = (
    Condition("base", "action", "act"),
    Condition("meta", "progress", "act, and report progress beside the action"),
    Condition("plain", "demos-plain", "demonstrations without progress, then act (a control)"),
    Condition("random", "demos-random", "demonstrations with random progress, then act"),
    Condition("retrospective", "demos-retrospective", "demonstrations with retrospective progress, then act"),
)


def find_conditions(names: Iterable[str]) -> list[Condition]:
    """Conditions by name, in the study's order; all for no names. Raises ConfigError."""
    conditions = [item.name for item in CONDITIONS]
    chosen = set(names)
    for name in sorted(chosen - set(conditions)):
        raise ConfigError(f"Unknown condition {name!r}{did_you_mean(name, conditions)}")
    return [item for item in CONDITIONS if not chosen or item.name in chosen]


def warm_start_settings(section: WarmupSection, conditions: Sequence[Condition]) -> list[str]:
    """Overrides with which a tiny model's warmup teaches the conditions' prompts, each as much as the others.

    Each kind of prompt gets as many rows an update as the recipe gives it. There is no stop at a success rate
    (decision D45). That is looked for with one kind of prompt, and would stop at a moment that flatters that
    kind.
    """
    rows = round(section.forward_batch * len(conditions) / max(len(section.forward_modes), 1))
    modes = ", ".join(item.mode for item in conditions)
    return [
        f"warmup.forward_modes=[{modes}]",
        f"warmup.forward_batch={rows}",
        "warmup.target_success=null",
    ]


def split_taught(
    style: str, conditions: Sequence[Condition], taught: frozenset[str] | None
) -> tuple[list[Condition], dict[str, str], list[str]]:
    """Conditions to play, those left out with the reason, and remarks on those played.

    Compact prompts are a code that only a model taught it can read. A full prompt is language, so an untaught
    one is played with a remark.
    """
    played: list[Condition] = []
    left_out: dict[str, str] = {}
    remarks: list[str] = []
    for item in conditions:
        if taught is None or item.mode in taught:
            played.append(item)
        elif style == "compact":
            left_out[item.name] = f"not played: the model's warmup did not teach this prompt ({item.mode})"
        else:
            played.append(item)
            remarks.append(
                f"{item.name}: the model's warmup did not teach this prompt; it reads it untaught."
            )
    return played, left_out, remarks


def seed_config(config: RunConfig, seed: int) -> RunConfig:
    """The settings of one seed: it names the warm start, the demonstrations shown, and the sampling."""
    section = config.eval.model_copy(update={"seed": config.eval.seed + seed})
    return config.model_copy(update={"seed": seed, "eval": section})


def open_pilot(
    config: RunConfig, out: Path, agent: str, weights: str = "", demos: Path | None = None
) -> None:
    """Prepare the folder of one seed; ``weights``: the fingerprint of a model that was given.

    ``demos``: demonstrations that were given. Raises ConfigError when the folder holds other settings,
    another model, server, demonstrations or other tasks, DataError for broken demonstrations.
    """
    open_run(out, config, FREE_ON_CONTINUE, "pilot")
    earlier = read_manifest(out)
    made_from: dict[str, Any] = {}
    if is_api(Path(agent)):
        made_from[SERVER] = server_identity(config.api, config.prompt.reflect_form)
        before, now = (flatten(entry[SERVER]) if SERVER in entry else {} for entry in (earlier, made_from))
        # Older versions also noted settings of annotations, which no evaluation depends on.
        changes = differences({name: value for name, value in before.items() if "annotate_" not in name}, now)
        if before and changes:
            raise ConfigError(
                f"{out} holds a pilot that another server answered, or the same with other settings:\n"
                f"{change_lines(changes)}\nUse another folder, or the same settings to continue."
            )
    if demos is not None:
        load_demos(demos)
        made_from[DEMOS_DIGEST] = demos_digest(demos)
        check_same_demos(out, demos, made_from[DEMOS_DIGEST])
    earlier_agent = earlier.get("agent")
    if earlier_agent is not None and (earlier_agent, earlier.get("weights")) != (agent, weights):
        raise ConfigError(
            f"{out} holds a pilot of {earlier_agent} (weights {earlier.get('weights') or 'made there'}), not "
            f"of {agent} (weights {weights or 'to be made there'}); use another folder."
        )
    with closing(build_pool(config.env)) as pool:
        panel, described = eval_panel(config.eval, pool.panel), pool.describe()
    panels = {panel.split: panel.manifest()}
    if earlier_agent is not None:
        check_same_panels(out, panels)
    else:
        write_manifest(
            out,
            manifest(
                config,
                "pilot",
                agent=agent,
                weights=weights,
                panels=panels,
                environment=described,
                **made_from,
            ),
        )


def finished(out: Path, condition: Condition, api: bool) -> dict[str, Any] | None:
    """The result that is there; None when it is not, or when a server left episodes without an answer."""
    path = evaluation_file(out, condition.name)
    if not path.exists():
        return None
    result = read_evaluation(path)
    return None if api and result.get("errors") else result


@dataclass(slots=True, frozen=True)
class PilotAgent:
    """The model that plays all conditions of a seed."""

    model: Path  # its folder, or api:MODEL
    policy: Policy  # that model, loaded
    experts: Sequence[Trajectory]  # to show in prompts


def play_condition(
    config: RunConfig,
    agent: PilotAgent,
    condition: Condition,
    out: Path,
    hooks: EvalHooks | None = None,
) -> dict[str, Any]:
    """Play the panel once in one condition; a finished one is not played again.

    Returns the result as ``evaluate`` does. Raises DataError for a broken result in ``out``, and what
    ``evaluate`` and ``check_context`` raise.
    """
    done = finished(out, condition, isinstance(agent.policy, HttpPolicy))
    if done is not None:
        return done
    check_context(config.prompt, agent.model, taught_prompt(agent.model))
    labels = mode_labels(condition.mode)
    method = config.method.model_copy(
        update={"name": f"pilot-{condition.name}", "progress": condition.mode == "progress"}
    )
    with closing(build_pool(config.env)) as pool:
        demonstrations = None
        if labels is not None:
            demonstrations = InContextDemos(
                agent.experts,
                labels,
                count=config.prompt.demonstrations,
                seed=config.seed,
                task_type=pool.task_type,
            )
        request = EvalRequest(condition.name, out=out, judge=False, demonstrations=demonstrations)
        return evaluate(
            config.model_copy(update={"method": method}),
            agent.model,
            request,
            policy=agent.policy,
            hooks=hooks,
        )
