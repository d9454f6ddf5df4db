"""Preparing a run folder for verl, and running verl's own program on it."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from repro_rl.config.values import name_in
from repro_rl.errors import ConfigError, MissingDependencyError, PreflightError
from repro_rl.files import check_record, read_yaml
from repro_rl.files.names import MANIFEST_FILE
from repro_rl.integrations.verl.data import require_pyarrow, write_tasks
from repro_rl.integrations.verl.recipe import CONFIG_NAME, VerlRecipe, write_verl_config
from repro_rl.integrations.verl.rendering import find_codec
from repro_rl.interrupts import run_child
from repro_rl.policy.gguf import model_folder
from repro_rl.policy.loading.checksums import OPTIMIZER_FILE, check_files
from repro_rl.run.folder import VERL_OVERRIDES, begin_run, check_run, manifest, write_manifest
from repro_rl.run.inputs import check_same_panels
from repro_rl.run.model_paths import START, kept_start, read_manifest, start_entry, start_model
from repro_rl.run.panels import Use
from repro_rl.run.preflight import preflight
from repro_rl.run.setup import Setup, set_up

# Settings that may differ when a run is continued: when to stop and what is kept.
FREE_ON_CONTINUE = ("train.iterations", "train.keep", "eval.split", "eval.tasks")
# Hydra overrides of verl's settings that may differ as well: where and how long it runs.
FREE_OVERRIDES = ("trainer.", "ray_kwargs.", "hydra.", "hydra/")
# Ends of the names of verl's settings that say how its work is cut to fit into memory.
MEMORY_OVERRIDES = (
    *("max_token_len_per_gpu", "gpu_memory_utilization", "enable_gradient_checkpointing"),
    *("param_offload", "optimizer_offload"),
)


def check_same_overrides(out: Path, overrides: Sequence[str]) -> None:
    """Raises ConfigError where the run ``out`` began with other overrides of verl's settings.

    Those that begin with ``FREE_OVERRIDES`` may differ, and with a warning those that end in
    ``MEMORY_OVERRIDES``. Manifests of older versions do not tell.
    """
    path = out / MANIFEST_FILE
    before = check_record(list[str], read_manifest(out).get(VERL_OVERRIDES, list(overrides)), file=path)
    then, now = (
        {text for text in texts if not name_in(text).lstrip("+~").startswith(FREE_OVERRIDES)}
        for texts in (before, overrides)
    )
    lasting = [
        {text for text in texts if not name_in(text).endswith(MEMORY_OVERRIDES)} for texts in (then, now)
    ]
    pair = f"--verl {' '.join(sorted(then)) or '(none)'} there, {' '.join(sorted(now)) or '(none)'} now."
    if lasting[0] != lasting[1]:
        raise ConfigError(
            f"{out} was begun with other settings of verl: {pair} Use another folder, or the same settings "
            "to continue."
        )
    if then != now:
        warnings.warn(
            f"{out} continues with other memory settings of verl; results are equal but for rounding: {pair}",
            stacklevel=3,
        )


def prepare_run(recipe: VerlRecipe, out: Path, overrides: Sequence[str] = ()) -> list[str]:
    """Write config.yaml, manifest.json, verl.yaml and the data files into ``out``; a line on each data file.

    ``overrides``: those of ``launch_command``, which the manifest keeps. Raises PreflightError without a
    model to start from, and ConfigError when ``out`` holds a run of other settings, overrides or tasks.
    Raises CheckpointError when the model that it began with is gone or its tokenizer cannot be loaded, and
    what ``preflight`` and ``Setup.check_texts`` raise. Warns of what those return.
    """
    config = recipe.config
    if config.train.init is None:
        raise PreflightError(
            "train.init is not set: give the model to start from, --init runs/warmup/model or a hub name."
        )
    start = start_model(config.train.init)
    continues = check_run(out, config, FREE_ON_CONTINUE, "verl")
    if continues:
        start = kept_start(out, start)
        check_same_overrides(out, overrides)
    model = str(model_folder(start))
    if Path(model).exists():
        check_files(Path(model), but=OPTIMIZER_FILE)
        model = str(Path(model).resolve())
    with closing(set_up(config)) as setup:
        for line in preflight(config, setup.pool.first, {Use.TRAIN, Use.VALIDATION}, model=start):
            warnings.warn(line, stacklevel=2)
        train = setup.panel(config.train.split)
        text, remarks = _check_tokenizer(setup, model, train.ids[0])
        for line in remarks:
            warnings.warn(line, stacklevel=2)
        panels = {
            "train": train.manifest(),
            "validation": setup.validation_panel().manifest(),
        }
        if continues:
            check_same_panels(out, panels)
        require_pyarrow()  # before anything is written
        begin_run(out, config, continues)
        write_manifest(
            out,
            manifest(
                config,
                "verl",
                panels=panels,
                environment=setup.pool.describe(),
                **{START: start_entry(start)},
                trainer="verl",
                text=text,
                verl=recipe.verl,
                **{VERL_OVERRIDES: list(overrides)},
            ),
        )
        lines = write_tasks(setup, out / "data")
    lines.append(f"{write_verl_config(recipe, model, out)}: the settings of verl")
    return lines


def _check_tokenizer(setup: Setup, model: str, task: str) -> tuple[dict[str, Any] | None, list[str]]:
    """What prompts depend on in ``model``, and what ``Setup.check_texts`` says of its tokenizer.

    verl's workers would find out late. The first is None where the tokenizer cannot be read.

    A hub name that cannot be read here may be there where verl runs, so that is a sentence too. So is a
    missing transformers. Raises what ``Setup.codec`` and ``Setup.check_texts`` raise.
    """
    found = find_codec(setup, model)
    if isinstance(found, str):
        return None, [f"Prompts are not checked with {found}"]
    return found.describe(), setup.check_texts(found, task)


def launch_command(out: Path, verl: list[str]) -> tuple[list[str], dict[str, str]]:
    """verl's own program on ``out`` and its environment variables; ``verl``: Hydra overrides.

    The variables are those that verl.yaml gives to Ray's workers: this process needs the same.
    """
    settings = read_yaml(out / f"{CONFIG_NAME}.yaml", dict[str, Any])
    variables = settings["ray_kwargs"]["ray_init"]["runtime_env"]["env_vars"]
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "--config-dir", str(out)]
    return [*command, "--config-name", CONFIG_NAME, *verl], {k: str(v) for k, v in variables.items()}


def command_text(command: Sequence[str], variables: dict[str, str]) -> str:
    """What a person types to run it in a shell."""
    return " ".join(
        [*(f"{key}={shlex.quote(value)}" for key, value in variables.items()), shlex.join(command)]
    )


def require_verl(command: str | None = None) -> None:
    """Raise MissingDependencyError where verl is not installed; ``command``: what was to run there."""
    if find_spec("verl") is None:
        then = "repeat this command with the repro-rl of that environment (.venv-verl/bin/repro-rl)"
        raise MissingDependencyError(
            "verl is not installed here. It needs an environment of its own: make verl-setup (docs/verl.md). "
            f"Then {then if command is None else f'run with its Python: {command}'}. To write data and "
            "settings alone: --prepare."
        )


def run_verl(command: list[str], variables: dict[str, str], log: Path | None = None) -> int:
    """Run it, its output into ``log`` if given; returns its exit status.

    Raises MissingDependencyError where verl is not installed.
    """
    require_verl(command_text(["python", *command[1:]], variables))  # not the Python of this environment
    environment = {**os.environ, **variables}
    if log is None:
        return run_child(command, env=environment)
    with open(log, "wb") as handle:
        return run_child(command, env=environment, stdout=handle, stderr=handle)
