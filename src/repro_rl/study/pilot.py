"""The paper's pilot study, by prompting alone: what does a progress estimate in the prompt do to success?

The conditions are METHOD's, and one control of ours (``plain``). All play the same tasks with the same random
streams. docs/pilot.md explains every decision.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro_rl.config import API, RunConfig, read_settings
from repro_rl.demos.incontext import Shelf, mode_labels
from repro_rl.errors import ConfigError, DataError, did_you_mean
from repro_rl.policy.base import Policy
from repro_rl.policy.http import HttpPolicy
from repro_rl.study.evaluate import evaluate
from repro_rl.train.build import build_pool
from repro_rl.train.run_folder import manifest, open_run, read_manifest, run_of, write_manifest
from repro_rl.types import Trajectory


@dataclass(slots=True, frozen=True)
class Condition:
    """A way to prompt. ``mode`` is the name that ``warmup.forward_modes`` knows it by."""

    name: str
    mode: str
    words: str


CONDITIONS = (
    Condition("base", "action", "act"),
    Condition("meta", "progress", "act, and report progress beside the action"),
    Condition("plain", "demos-plain", "demonstrations without progress, then act (our control)"),
    Condition("random", "demos-random", "demonstrations with random progress, then act"),
    Condition("retrospective", "demos-retrospective", "demonstrations with retrospective progress, then act"),
)


def find_conditions(names: Iterable[str]) -> list[Condition]:
    """Conditions by name, in the study's order; all for no names. Raises ConfigError."""
    known = {item.name: item for item in CONDITIONS}
    wanted = set(names)
    for name in sorted(wanted - set(known)):
        raise ConfigError(f"Unknown condition {name!r}{did_you_mean(name, known)}")
    return [item for item in CONDITIONS if not wanted or item.name in wanted]


def warm_start_settings(config: RunConfig, conditions: Sequence[Condition]) -> list[str]:
    """Overrides with which a tiny model's warmup teaches the conditions' prompts, each as much as the others.

    Each kind of prompt gets as many rows an update as the recipe gives it. No stop at a success rate: it is
    looked for with one kind of prompt, and would stop at a moment that flatters that kind (our decisions).
    """
    section, count = config.warmup, len(conditions)
    rows = round(section.forward_batch * count / max(len(section.forward_modes), 1))
    modes = ", ".join(item.mode for item in conditions)
    return [
        f"warmup.forward_modes=[{modes}]",
        f"warmup.forward_batch={rows}",
        "warmup.target_success=null",
    ]


def taught_modes(model: str | Path) -> frozenset[str] | None:
    """The prompt modes that the warmup behind a model taught; None for a model that no run here made.

    ``model``: a run folder, a model folder in one, or anything else. A trained run is followed to its warm
    start.
    """
    if str(model).startswith(API):
        return None
    run = run_of(model)
    if run is None:
        return None
    settings = read_settings(run / "config.yaml")
    init = (settings.get("train") or {}).get("init")
    found = taught_modes(init) if init and Path(init) not in (Path(model), run) else None
    return _own_modes(settings) if found is None else found


def _own_modes(settings: dict[str, Any]) -> frozenset[str]:
    modes = (settings.get("warmup") or {}).get("forward_modes")
    return frozenset(modes if modes is not None else RunConfig().warmup.forward_modes)


def split_taught(
    config: RunConfig, conditions: Sequence[Condition], taught: frozenset[str] | None
) -> tuple[list[Condition], dict[str, str], list[str]]:
    """Conditions to play, those left out with the reason, and remarks on those played.

    Compact prompts are a code that only a model taught it can read; a full prompt is language, so an untaught
    one is played with a remark.
    """
    played: list[Condition] = []
    left_out: dict[str, str] = {}
    remarks: list[str] = []
    for item in conditions:
        if taught is None or item.mode in taught:
            played.append(item)
        elif config.prompt.style == "compact":
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


def fingerprint(model: Path) -> str:
    """Tells model folders apart: sha256 over size, first and last MiB of every weight file; "" for none."""
    digest, found = hashlib.sha256(), False
    for path in sorted(model.glob("*.safetensors")) if model.is_dir() else ():
        size, found = path.stat().st_size, True
        with open(path, "rb") as handle:
            digest.update(f"{path.name} {size} ".encode() + handle.read(1 << 20))
            handle.seek(max(0, size - (1 << 20)))
            digest.update(handle.read())
    return digest.hexdigest()[:16] if found else ""


def open_pilot(config: RunConfig, out: Path, agent: str, weights: str = "") -> None:
    """Prepare the folder of one seed; ``weights``: the fingerprint of a model that was given.

    Raises ConfigError when the folder holds other settings or another model.
    """
    open_run(out, config)
    known = read_manifest(out)
    there = known.get("agent")
    if there is not None and (there, known.get("weights")) != (agent, weights):
        raise ConfigError(
            f"{out} holds a pilot of {there} (weights {known.get('weights') or 'made there'}), not of "
            f"{agent} (weights {weights or 'to be made there'}); use another folder."
        )
    pool = build_pool(config)
    panel = pool.first.panel(config.eval.split).head(config.eval.tasks)
    if there is None:
        write_manifest(
            out,
            manifest(
                config,
                agent=agent,
                weights=weights,
                panels={config.eval.split: panel.manifest()},
                environment=pool.first.describe(),
            ),
        )


def check_demos(folder: Path, config: RunConfig) -> None:
    """Demonstrations must be of this environment. Raises ConfigError; DataError for a broken demos.json."""
    path = folder / "demos.json"
    if not path.exists():
        return  # made elsewhere; load_demos checks the rest
    try:
        env = json.loads(path.read_text())["settings"]["env"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"no settings of demonstrations ({error})", file=path) from error
    if env != config.env.model_dump(mode="json"):
        raise ConfigError(f"{folder} holds demonstrations of {env}, not of {config.env.model_dump()}.")


def finished(out: Path, condition: Condition, api: bool) -> dict[str, Any] | None:
    """The result that is there; None when it is not, or when a server left episodes without an answer."""
    path = out / "eval" / f"{condition.name}.json"
    if not path.exists():
        return None
    try:
        result = dict(json.loads(path.read_text()))
        return None if api and result["errors"] else result
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"no evaluation ({error}); delete it and repeat the command.", file=path) from error


def play_condition(
    config: RunConfig,
    model: Path,
    policy: Policy,
    condition: Condition,
    experts: Sequence[Trajectory],
    out: Path,
    *,
    on_total: Callable[[int], None] | None = None,
    on_done: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Play the panel once in one condition; what is finished is returned as it is. See evaluate."""
    done = finished(out, condition, isinstance(policy, HttpPolicy))
    if done is not None:
        return done
    labels = mode_labels(condition.mode)
    shelf = None
    if labels is not None:
        kind = build_pool(config).first.task_type
        shelf = Shelf(experts, labels, count=config.prompt.demonstrations, seed=config.seed, task_type=kind)
    method = config.method.model_copy(
        update={"name": f"pilot-{condition.name}", "progress": condition.mode == "progress"}
    )
    return evaluate(
        config.model_copy(update={"method": method}),
        model,
        name=condition.name,
        out=out,
        judge=False,
        policy=policy,
        shelf=shelf,
        on_total=on_total,
        on_done=on_done,
    )
