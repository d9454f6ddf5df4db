"""The formats of completions that the tests of text go through, and a prompt of each kind."""

from __future__ import annotations

from repro_rl.text import PromptBuilder, ReflectStep, StepInputs, TextFormat

FULL = TextFormat("full", progress=True, think="optional")
THINK = TextFormat("full", progress=True, think="required")
NO_THINK = TextFormat("full", progress=True, think="off")
PLAIN = TextFormat("full", progress=False, think="off")
COMPACT = TextFormat("compact", progress=True)
COMPACT_PLAIN = TextFormat("compact", progress=False)
LATE = TextFormat("full", progress=True, think="optional", report="after")
COMPACT_LATE = TextFormat("compact", progress=True, report="after")
FORMATS = [FULL, THINK, NO_THINK, PLAIN, LATE, COMPACT, COMPACT_PLAIN, COMPACT_LATE]

STEPS = [
    ReflectStep(1, "##\n#.", "up", "moved\nup", "box  far"),
    ReflectStep(2, "moved\nup", "", "nothing happened", "box near"),
]


def step_inputs(step: int = 4, **changes: object) -> StepInputs:
    """Of step ``step`` (1-based), with all the steps before it as history."""
    arguments: dict[str, object] = {
        "instructions": "You push boxes.",
        "goal": "Put the box on the target.",
        "observation": f"view\n{step}",
        "admissible": ["up", "down"],
        "history": [(f"seen {t}", f"did {t}") for t in range(1, step)],
        "step": step,
        "max_steps": 15,
    }
    return StepInputs(**(arguments | changes))  # type: ignore[arg-type]


def act_prompt(builder: PromptBuilder, step: int = 4, **changes: object) -> str:
    return builder.act(step_inputs(step, **changes))


def reflect_prompt(builder: PromptBuilder, **changes: object) -> str:
    arguments: dict[str, object] = {
        "instructions": "You push boxes.",
        "goal": "Put the box on the target.",
        "steps": STEPS,
        "won": True,
        "score": 1.0,
        "first_observation": "start\nhere",
    }
    return builder.reflect(**(arguments | changes))  # type: ignore[arg-type]
