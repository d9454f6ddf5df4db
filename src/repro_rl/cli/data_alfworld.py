"""``repro-rl data alfworld``: write households as game files, set official games aside, look at games."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from repro_rl.cli.show import bar, say
from repro_rl.errors import ConfigError

alfworld = typer.Typer(
    no_args_is_help=True, help="ALFWorld games: generated households as files, official games."
)


@alfworld.command("generate")
def generate_alfworld(
    out: Annotated[Path, typer.Option("--out", "-o", help="folder to write to", show_default=False)],
    games: Annotated[
        int, typer.Option(min=10, help="how many training games; each other split gets a quarter of that")
    ] = 2000,
    seed: Annotated[int, typer.Option(help="another seed makes other games")] = 0,
) -> None:
    """Write generated households as official game files, which the original packages play as well.

    The same count and seed give the same games everywhere. A repeated call goes on where the last one
    stopped.
    """
    from repro_rl.envs.alfworld.export import write_tree
    from repro_rl.envs.alfworld.sources import split_sizes
    from repro_rl.files import LOCK_FILE, only_writer

    start = time.monotonic()
    total = sum(split_sizes(games).values())
    with only_writer(out / LOCK_FILE, "generator of games"), bar("games", total) as progress:
        written = write_tree(out, games, seed, on_done=progress.at)
    new = sum(written.values())
    say(
        f"{new:,} of {total:,} games written ({total - new:,} were there) in {time.monotonic() - start:.0f} s"
    )
    say(f"Use them with data={out}, e.g. repro-rl play alfworld data={out}")


@alfworld.command("hold-out")
def hold_out_alfworld(
    folder: Annotated[Path, typer.Argument(help="a folder with official games", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder to write to", show_default=False)],
    test: Annotated[
        float, typer.Option(min=0, max=1, help="share of each task type that becomes valid_unseen")
    ] = 0.25,
    validation: Annotated[
        float, typer.Option(min=0, max=1, help="share of each task type that becomes valid_seen")
    ] = 0.1,
    types: Annotated[
        str, typer.Option(help="only these task types, with commas  \\[default: all]", show_default=False)
    ] = "",
) -> None:
    """Set training games aside for evaluation, where the official validation games are not at hand.

    The choice goes by the games' content: everyone who has these games gets the same.
    """
    from repro_rl.envs.alfworld.holdout import TEST, TRAIN, VALIDATION, hold_out
    from repro_rl.files import only_maker

    with only_maker(out, "copy of games"), bar("games") as progress:
        kinds = [name.strip() for name in types.split(",") if name.strip()]
        counts = hold_out(folder, out, test=test, validation=validation, types=kinds, on_done=progress.at)
    shares = {TEST: test, VALIDATION: validation, TRAIN: 1 - test - validation}
    say(", ".join(f"{split} {counts.get(split, 0):,}" for split in shares))
    for split, share in shares.items():
        if share and split not in counts:
            say(f"{split} got no game: no task type has enough for a share of {share:g}.")
    say(f"Use them with data={out}, e.g. repro-rl data alfworld info {out}")


@alfworld.command("info")
def info_alfworld(
    folder: Annotated[
        Path | None,
        typer.Argument(help="a folder with games  \\[default: $ALFWORLD_DATA]", show_default=False),
    ] = None,
) -> None:
    """Show what a folder with games holds: games by split and task type, and the digests of the panels."""
    from repro_rl.envs.alfworld.sources import GameFolder

    path = folder or os.environ.get("ALFWORLD_DATA")
    if not path:
        raise ConfigError("name a folder with games, or set ALFWORLD_DATA to one")
    tree = GameFolder(Path(path))
    say(tree.describe())
    for split in tree.splits():
        survey = tree.survey(split)
        say(f"{split}: {len(survey.panel):,} games, panel digest {survey.panel.digest}")
        for kind, count in sorted(survey.kinds.items()):
            say(f"  {kind:<34}{count:>7,}")
        say(f"  {'not in the panel: unsolvable':<34}{survey.unsolvable:>7,}")
        say(f"  {'not in the panel: movable, sliced':<34}{survey.left_out:>7,}")
    for split, (_, size) in tree.unfinished().items():
        if split not in tree.splits():
            say(f"{split}: none of its {size:,} games was made before 'generate' was interrupted")
