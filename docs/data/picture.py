"""The picture of the first page: the loop, and one recorded episode with its three kinds of progress.

``python docs/data/picture.py`` draws docs/images/loop.svg from docs/data/episode.json.
``python docs/data/picture.py --run runs/demo-seed0/train`` takes the episode anew from a run of the demo. It
is the first won episode of the last checkpoint's evaluation that has ten steps or more.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro_rl.rollout import read_trajectories

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE = Path(__file__).parent
EPISODE = HERE / "episode.json"
PICTURE = HERE.parent / "images" / "loop.svg"
LONG = 10  # steps of the episode at least, so that there is something to see
TRUE, RETROSPECTIVE, ONLINE = "#1a7f37", "#0969da", "#bc4c00"
BOXES = (  # place, title, what happens
    (0.0, "act", "the model says how far it is,\nthen chooses an action"),
    (1.0, "reflect", "the same model, knowing the\noutcome, judges every step"),
    (2.0, "reward", "outcome + judged gain − distance\nof estimate and judgement"),
    (3.0, "update", "group-relative advantage,\nclipped policy gradient"),
)


def take(run: Path) -> dict[str, Any]:
    """The episode's three series in percent, and where it is from."""
    manifest = json.loads((run / "manifest.json").read_text())
    for record in read_trajectories(run / "trajectories" / "eval-last.jsonl.gz"):
        if record["won"] and len(record["steps"]) >= LONG:
            return {
                "task": record["task_id"],
                "method": manifest["method"],
                "seed": manifest["seed"],
                "online": [step["online"] for step in record["steps"]],
                "retrospective": record["reflection"]["values"],
                "true": [round(100 * step["truth"], 1) for step in record["steps"]],
            }
    raise SystemExit(f"{run} has no won episode of {LONG} steps.")


def draw_loop(axes: Axes) -> None:
    """Four boxes from left to right, and the way back from the last to the first."""
    axes.set(xlim=(-0.5, 3.5), ylim=(-0.75, 0.62))
    axes.axis("off")
    for place, title, text in BOXES:
        box = {"boxstyle": "round,pad=0.45", "facecolor": "#eef4fb", "edgecolor": "#57606a"}
        axes.text(place, 0.34, title, ha="center", va="center", size=12, weight="bold", bbox=box)
        axes.text(place, -0.02, text, ha="center", va="top", size=7.6, color="#24292f")
    arrow = {"arrowstyle": "-|>", "color": "#57606a", "linewidth": 1.3}
    for place in range(3):
        axes.annotate("", (place + 0.73, 0.34), (place + 0.27, 0.34), arrowprops=arrow)
    axes.annotate(
        "", (0.0, -0.36), (3.0, -0.36), arrowprops=arrow | {"connectionstyle": "bar,fraction=-0.09"}
    )
    axes.text(1.5, -0.53, "next iteration, with the new weights", ha="center", size=7.6, color="#57606a")


def draw_episode(axes: Axes, episode: dict[str, Any]) -> None:
    """The three series over the steps, each named at its line."""
    steps = range(1, len(episode["true"]) + 1)
    for name, label, colour, style in (
        ("true", "true (solver; never shown to the agent)", TRUE, "-"),
        ("retrospective", "retrospective (the model, looking back)", RETROSPECTIVE, "-"),
        ("online", "online (the model, while acting)", ONLINE, "--"),
    ):
        axes.plot(steps, episode[name], style, color=colour, marker="o", markersize=3.5, label=label)
    axes.set(xlabel="step of the episode", ylabel="progress, %", ylim=(-4, 104), xticks=list(steps))
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    axes.grid(color="#d0d7de", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    title = f"One won episode of the demo's agent: {episode['task'].split('-')[1]} room, {episode['method']}"
    axes.set_title(f"{title}, seed {episode['seed']}", size=9, loc="left")


def draw(episode: dict[str, Any], out: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with mpl.rc_context({"svg.hashsalt": "repro-rl", "font.family": "DejaVu Sans", "font.size": 9}):
        figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 5.6), height_ratios=(1, 1.55))
        draw_loop(top)
        draw_episode(bottom, episode)
        figure.tight_layout(h_pad=1.2)
        figure.savefig(out, metadata={"Date": None}, facecolor="white")
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, help="a run folder of the demo, to take the episode anew")
    given = parser.parse_args()
    if given.run is not None:
        EPISODE.write_text(json.dumps(take(given.run)) + "\n")
    draw(json.loads(EPISODE.read_text()), PICTURE)
    print(PICTURE)


if __name__ == "__main__":
    main()
