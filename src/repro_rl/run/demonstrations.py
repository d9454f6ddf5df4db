"""A folder of demonstrations: made once, continued where it was left, and never of two settings."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro_rl.config import RunConfig
from repro_rl.config.changes import change_lines, differences, same_places
from repro_rl.config.paths import base_entry
from repro_rl.config.renamed import with_current_names
from repro_rl.demos import ANNOTATORS, BatchAnnotator, CollectHooks, collect_demos, save_demos
from repro_rl.demos.collect import summary
from repro_rl.demos.own import episodes_digests
from repro_rl.demos.recorded import recorded_digests
from repro_rl.demos.store import made_with
from repro_rl.errors import ConfigError, PreflightError
from repro_rl.files import LOCK_FILE, UnfinishedRows, key_of, only_writer, sweep_temporaries, write_json
from repro_rl.files.names import DEMOS_FILE, EXPERT_FILE
from repro_rl.run.folder import flatten
from repro_rl.run.folder_kind import check_kind
from repro_rl.run.panels import Use
from repro_rl.run.preflight import preflight
from repro_rl.run.setup import build_pool
from repro_rl.text.digests import PACKAGE

UNFINISHED_FILE = "unfinished.jsonl"  # there, while they are collected: the episodes so far


@dataclass(slots=True)
class DemosHooks:
    """What who makes demonstrations may show meanwhile."""

    on_remark: Callable[[str], None] | None = None  # called with each sentence of ``preflight``
    on_begin: Callable[[int], CollectHooks] | None = None  # called with the number of episodes to play


@dataclass(slots=True, frozen=True)
class MadeDemos:
    """What a call has collected."""

    experts: int  # episodes to imitate
    labelled: int
    notes: dict[str, Any] = field(default_factory=dict)  # the annotator's counts


def make_demos(config: RunConfig, out: Path, hooks: DemosHooks | None = None) -> MadeDemos | None:
    """Collect demonstrations into ``out``, unless they are there already; None where they are.

    Episodes are kept as they are played, so a call that was stopped goes on after the last one. Raises
    ConfigError when the folder holds demonstrations of other settings, PreflightError when another process
    makes them, and what ``preflight`` and ``collect_demos`` raise.
    """
    check_kind(out, "demonstrations")
    key = demos_key(config)
    if not demos_exist(out, key):
        with only_writer(out / LOCK_FILE, "collection of demonstrations"):
            if not demos_exist(out, key):  # another process may have been faster
                sweep_temporaries(out)
                return _collect(config, out, key, hooks or DemosHooks())
    elif any((out / name).exists() for name in (LOCK_FILE, UNFINISHED_FILE)):
        # The command that made them was killed at its very end. A read-only folder stays as it is.
        with suppress(OSError, PreflightError), only_writer(out / LOCK_FILE):
            (out / UNFINISHED_FILE).unlink(missing_ok=True)
    return None


def _collect(config: RunConfig, out: Path, key: dict[str, Any], hooks: DemosHooks) -> MadeDemos:
    """Play and label demonstrations, and write them into ``out``; ``key``: see ``demos_key``."""
    section = config.demos
    total = section.expert + section.wandering_episodes + section.winning + section.failing
    with closing(build_pool(config.env)) as pool:
        for line in preflight(config, pool.first, {Use.DEMOS}):
            if hooks.on_remark is not None:
                hooks.on_remark(line)
        panel = pool.panel(section.split)
        unfinished = UnfinishedRows(out / UNFINISHED_FILE, key_of([key, panel.digest]))
        shown = CollectHooks() if hooks.on_begin is None else hooks.on_begin(total)
        shown.unfinished = unfinished
        experts, labelled = collect_demos(
            pool.first,
            panel.ids,
            section,
            seed=config.seed,
            config=config,
            hooks=shown,
        )
    save_demos(out, experts, labelled)
    counts = {"expert": summary(experts), "labelled": summary(labelled), "annotation": shown.notes or None}
    write_json(out / DEMOS_FILE, {"settings": key, "panel": panel.label(), **base_entry(out), **counts})
    unfinished.remove()
    return MadeDemos(len(experts), len(labelled), shown.notes)


def demos_key(config: RunConfig) -> dict[str, Any]:
    """What decides the demonstrations.

    The content of the files of episodes counts: they may lie elsewhere by then. Of recorded runs it does too,
    for they may have trained on. Raises UnknownNameError for
    an annotator that does not exist, and DataError for a file that cannot be read.
    """
    section = config.demos
    # Folders made before there were these settings are those of their defaults.
    unset = {name for name in ("recorded", "episodes") if not getattr(section, name)}
    key: dict[str, Any] = {
        "env": config.env.model_dump(mode="json"),
        "demos": section.model_dump(mode="json", exclude=unset),
        "seed": config.seed,
    }
    if section.recorded:
        key["demos"]["recorded_digests"] = recorded_digests(section.recorded)
    if section.episodes:
        key["demos"]["episodes_digests"] = episodes_digests(section.episodes)
        del key["demos"]["episodes"]
    annotator = ANNOTATORS.get(section.annotator)
    return {**key, "annotator": annotator.settings(config)} if isinstance(annotator, BatchAnnotator) else key


def demos_exist(out: Path, key: dict[str, Any]) -> bool:
    """Whether ``out`` holds complete demonstrations.

    Raises ConfigError when another key made them, and when no command did: those are not replaced.
    """
    if not (out / EXPERT_FILE).exists():
        return False
    settings = made_with(out)
    if settings is None:
        if not (out / UNFINISHED_FILE).exists():
            raise ConfigError(
                f"{out} holds demonstrations that this command has not made ({DEMOS_FILE} is missing). Name "
                "another folder with --out; 'repro-rl warmup --demos' takes them as they are."
            )
        return False
    held = settings.get("demos")
    if isinstance(held, dict) and isinstance(held.get("episodes"), dict):  # by file, in an older version
        held["episodes_digests"] = list(held.pop("episodes").values())
    before, now = flatten(with_current_names(settings, warn=False)), flatten(key)
    before = same_places(before, now)
    # Older versions do not say which server labelled them, with which prompts, nor what was recorded.
    later = ("annotator.base_url", f"annotator.{PACKAGE}", "demos.recorded_digests")
    now = {name: value for name, value in now.items() if name in before or name not in later}
    if changes := differences(before, now):
        raise ConfigError(
            f"{out} holds demonstrations made with other settings:\n{change_lines(changes)}\n"
            "Name another folder with --out."
        )
    return True
