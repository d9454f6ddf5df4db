"""Prompts with more in them than the agent had: how the episode ended, or the reflection on it.

They are for scoring answers that were sampled without it (HCAPO, self-distillation), never for acting. A
warmup teaches the same prompts, of demonstrations, in the modes "privileged-..." of ``warmup.forward_modes``.
"""

from __future__ import annotations

from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.rollout.fit import largest_fitting, shorten
from repro_rl.text.prompts import PromptBuilder
from repro_rl.types import Ids, Trajectory

END, REFLECTION = "The episode ended like this:", "What was said of the episode afterwards:"


def privileged_text(trajectory: Trajectory, what: str, prompts: PromptBuilder) -> str:
    """The privileged text: "end" the last observation, "reflection" as written, "values" P_1..P_T.

    The reflection on a demonstration has labels without a text. It is then what a judge is taught to write.
    Empty where there is no text; a reflection without valid values is not used.
    """
    if what == "end":
        return trajectory.final_observation
    reflection = trajectory.reflection
    if reflection is None or not trajectory.judged:
        return ""
    written = "" if what == "values" else reflection.completion.text.strip()
    return written or prompts.reflection_target(trajectory.judged).strip()


def privileged_ids(
    prompt: str, text: str, what: str, prompts: PromptBuilder, codec: TextCodec, limit: int
) -> Ids | None:
    """The ids of a step's ``prompt`` behind the privileged text, in at most ``limit`` tokens.

    In full style a sentence announces the text, and a long text is shortened; compact prompts hold the bare
    words. None without a text, and where it does not fit.
    """
    if not text:
        return None
    compact = prompts.fmt.style == "compact"
    heading = "" if compact else f"{END if what == 'end' else REFLECTION}\n"
    gap = " " if compact else "\n\n"

    def attempt(characters: int | None) -> str | None:
        part = text if characters is None else shorten(text, characters)
        whole = f"{heading}{part}{gap}{prompt}"
        return whole if len(codec.encode(whole)) <= limit else None

    found = attempt(None)
    if found is None and not compact:
        found = largest_fitting(len(text), attempt)
    return None if found is None else codec.encode(found)
