"""Folders of a comparison, without its runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repro_rl.files import write_json, write_text
from repro_rl.rollout.record import write_records


def write_result(
    out: Path, arm: str, seed: int, won: Sequence[int], *, scores: Sequence[float] | None = None, **more: Any
) -> None:
    """An evaluated run: ``won`` per task."""
    folder = out / "runs" / arm / f"seed{seed}"
    values = list(scores or map(float, won))
    write_records(
        folder / "trajectories" / "eval-last.jsonl.gz",
        [
            {"steps": [], "task_id": f"t{n}", "won": bool(w), "score": s}
            for n, (w, s) in enumerate(zip(won, values, strict=True))
        ],
    )
    data = {
        **{"success": sum(won) / len(won), "score": sum(values) / len(values), "digest": "d1"},
        **{"panel": "p@d1", "tasks": len(won), "rollouts_per_task": 1, "temperature": 0.4, "seed": 1},
    }
    write_json(folder / "eval" / "last.json", data | more)


def write_curve(out: Path, arm: str, seed: int, points: Sequence[tuple[int, float, float]]) -> None:
    rows = [
        {"iteration": n + 1, "env_steps": steps, "seconds": seconds, "validation/success": success}
        for n, (steps, seconds, success) in enumerate(points)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_text(out / "runs" / arm / f"seed{seed}" / "metrics.jsonl", text)
