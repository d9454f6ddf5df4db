"""``repro-rl eval``: a checkpoint on a fixed panel of tasks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repro_rl.cli import complete
from repro_rl.cli.app import app
from repro_rl.cli.data_gguf import convert_checked, convert_once
from repro_rl.cli.options import Overrides, read_run_config
from repro_rl.cli.show import bar, say, show_evals
from repro_rl.cli.terminal import careful
from repro_rl.errors import ConfigError

if TYPE_CHECKING:
    from repro_rl.config import RunConfig


@app.command("eval")
def eval_command(
    path: Annotated[
        str,
        typer.Argument(
            help="a run folder, a Hugging Face model folder or hub name, a GGUF file, or api:MODEL "
            "(see api.base_url)"
        ),
    ],
    overrides: Overrides = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--config", "-c", help="settings  \\[default: those of the run]", autocompletion=complete.recipes
        ),
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="best, last, warm-start or an iteration")] = "last",
    name: Annotated[
        str | None, typer.Option(help="name of the result file  \\[default: the checkpoint's]")
    ] = None,
    judge: Annotated[bool, typer.Option(help="also reflect, and measure progress quality")] = True,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="folder for results  \\[default: the run]")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="play it although its result is there")] = False,
) -> None:
    """Evaluate a checkpoint on a fixed, hashed panel, with intervals."""
    from repro_rl.cli.api import api_model, api_run, usage_notes
    from repro_rl.config.values import name_in
    from repro_rl.policy.gguf import is_gguf
    from repro_rl.policy.loading.hub import is_hub_name
    from repro_rl.run.alarms import evaluation_alarms
    from repro_rl.run.panels import Use

    model = api_model(Path(path))
    config = read_run_config(path, source, overrides, *([("api.model", model)] if model else []))
    given = set(map(name_in, overrides or []))
    if config.eval.panel is not None and (extra := sorted(given & {"eval.split", "eval.tasks"})):
        raise ConfigError(
            f"{' and '.join(extra)} beside eval.panel={config.eval.panel}: the tasks are those of the file. "
            "Leave one of them out; 'repro-rl panel export -n N' writes a smaller file."
        )
    if model:
        out, name = out or api_run(model), name or api_run(model).name
    elif is_hub_name(path):  # a folder of the name would hide the model from then on
        out = out or api_run(path, "hub")
    elif is_gguf(path):
        out, name = out or Path("runs") / Path(path).stem, name or Path(path).stem
    convert_checked(config, str(path), {Use.EVAL})  # what is not converted is loaded or paid for afterwards
    result = run_eval_stage(config, path, checkpoint, out or Path(path), name=name, judge=judge, again=again)
    show_evals([result])
    for line in evaluation_alarms(result):
        say(careful(line))
    if result["api"]:
        for line in usage_notes(result):
            say(line)
        say(f"The result is in {Path(out or path) / 'eval' / result['name']}.json.")


def run_eval_stage(
    config: RunConfig,
    path: str | Path,
    checkpoint: str,
    out: Path,
    *,
    name: str | None = None,
    judge: bool = True,
    again: bool = False,
) -> dict[str, Any]:
    """Evaluate ``checkpoint`` of ``path`` behind a progress bar; the result, which ``out`` holds then too.

    ``name``: of the result file; None for the checkpoint's. A result that is there is not made ``again``
    unless asked for. See ``repro_rl.study.evaluate``.
    """
    from repro_rl.run.model_paths import find_agent
    from repro_rl.study.evaluate import EvalHooks, EvalRequest, evaluate

    model = find_agent(path, checkpoint)
    convert_once(model)
    iteration = int(model.name) if model.name.isdigit() else 0 if checkpoint == "warm-start" else None
    name = name or checkpoint
    found: list[Path] = []
    with bar(f"eval {name}") as progress:
        request = EvalRequest(name, iteration, out, judge, again=again)
        resumed = partial(progress.continuing, f"the evaluation {name} in {out}")
        hooks = EvalHooks(progress.total, progress.add, found.append, resumed)
        result = evaluate(config, model, request, hooks=hooks)
    for file in found:
        say(f"{file} holds this evaluation already; 'repro-rl eval --again' plays it once more.")
    return result
