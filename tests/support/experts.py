"""Expert episodes by hand, for demonstrations in prompts."""

from __future__ import annotations

from repro_rl.types import Reflection, Status, Step, Trajectory, no_completion


def expert(name: str, values: tuple[int, ...] | None, *, won: bool = True, seen: str = "") -> Trajectory:
    """An episode of two steps in the task ``name``; ``values``: its labels."""
    steps = [
        Step(
            t=t,
            observation=f"{seen or name}-see{t}",
            brief=f"{name}-brief{t}",
            anchor=t,
            prompt="",
            completion=no_completion(),
            action=f"go {t}",
            online=None,
            defects=(),
            valid=True,
            env_reward=0.0,
            truth=None,
        )
        for t in (1, 2)
    ]
    reflection = Reflection("", no_completion(), values, () if values else ("unlabelled",))
    return Trajectory(name, 0, "reach it", steps, won, 1.0, Status.TERMINATED, reflection=reflection)
