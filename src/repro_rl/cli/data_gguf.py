"""``repro-rl data gguf``, and the progress bar when another command meets a GGUF file for the first time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repro_rl.cli.show import bar, say

if TYPE_CHECKING:
    from repro_rl.config import RunConfig
    from repro_rl.run.panels import Use

MILLION = 1_000_000  # of weights: the unit of the bar


def gguf(
    file: Annotated[Path, typer.Argument(help="a GGUF file", show_default=False)],
    out: Annotated[Path, typer.Argument(help="folder to write to", show_default=False)],
) -> None:
    """Turn a GGUF file into an ordinary model folder: float32 weights, tokenizer, chat template."""
    from repro_rl.files import only_maker, read_json
    from repro_rl.policy.gguf import ORIGIN_FILE, convert_gguf

    start = time.monotonic()
    with only_maker(out, "conversion"):
        _behind_bar(partial(convert_gguf, file, out))
    origin = read_json(out / ORIGIN_FILE)
    formats = ", ".join(origin["block_formats"])
    tied = "tied to the embedding" if origin["tied"] else "its own"
    say(f"{origin['architecture']} model from {file} ({formats}) in {time.monotonic() - start:.0f} s")
    say(f"The output matrix is {tied}. Use it with policy.model={out}")


def convert_once(*models: str | Path | None) -> None:
    """Convert the GGUF files among ``models`` that are not in the cache yet, behind a progress bar.

    Raises what ``convert_gguf`` raises.
    """
    from repro_rl.policy.gguf import cached_folder, is_converted, is_gguf, model_folder

    for model in models:
        if model is None or not is_gguf(model) or is_converted(cached_folder(model)):
            continue
        say(f"{model} is converted once, into {cached_folder(model)}")
        _behind_bar(partial(model_folder, model))


def convert_checked(
    config: RunConfig, model: str | None, uses: Collection[Use], *, trains: bool = False
) -> None:
    """``convert_once`` for a command that plays tasks for ``uses``: what it lacks is found before.

    ``trains``: also what ``check_installed`` asks for. Raises what ``preflight``, ``check_installed`` and
    ``convert_once`` raise. The command itself says what ``preflight`` returns.
    """
    from repro_rl.policy.gguf import is_gguf

    if model is not None and is_gguf(model):
        from repro_rl.run.preflight import check_installed, preflight
        from repro_rl.run.setup import build_pool

        with closing(build_pool(config.env)) as pool:
            preflight(config, pool.first, uses)
        if trains:
            check_installed(config)
        convert_once(model)


def _behind_bar(convert: Callable[[Callable[[int, int], None]], Any]) -> None:
    with bar("million weights") as progress:

        def on_done(done: int, total: int) -> None:
            progress.total(max(1, round(total / MILLION)))
            progress.at(round(done / MILLION))

        convert(on_done)
