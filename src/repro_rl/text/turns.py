"""The user turns of an episode that is one conversation: first observation, next observations, reflection.

Template files: ``templates/<style>/chat_first.jinja``, ``chat_next.jinja``, ``chat_reflect.jinja``, replaced
like those of ``PromptBuilder``. The first turn has the content of a step's prompt. A next turn has the new
observation and, in full style, the actions that are possible now. The last turn has the observation after
the last action, the outcome, and the request for a reflection.

Variables are those of forward.jinja and reflect.jinja. chat_reflect.jinja has ``observation`` (after the last
action) and ``length`` (T) in place of steps, instructions and first_observation.
"""

from __future__ import annotations

from repro_rl.text.prompts import CHAT, PromptBuilder, StepInputs, one_line

FIRST, NEXT, LAST = CHAT


class TurnPrompts:
    """Renders user turns in the format of ``prompts``; its ``history`` is not used."""

    def __init__(self, prompts: PromptBuilder):
        self.prompts, self.fmt = prompts, prompts.fmt

    def act(self, inputs: StepInputs) -> str:
        """The user turn that asks for an action. Demonstrations belong to the first turn only.

        Compact style: ``<observation> act``, from step 2 on ``<observation> t<step - 1> act``. The step
        number marks the state that the reflection judges. ``progress`` replaces ``act`` when it is to be
        reported.
        Raises ConfigError when the template fails, or leaves the demonstrations out.
        """
        return self.prompts.render_step(self.prompts.chat[FIRST if inputs.step == 1 else NEXT], inputs)

    def reflect(self, *, goal: str, observation: str, length: int, won: bool, score: float) -> str:
        """The user turn that gives the outcome and asks for P_1..P_T, T = ``length``.

        ``observation``: after the last action; "" leaves it out. Compact style:
        ``<observation> t<T> reflect won|lost judge``.
        """
        return self.prompts.render_reflection(
            self.prompts.chat[LAST],
            goal=goal,
            observation=one_line(observation) if self.fmt.style == "compact" else observation,
            length=length,
            won=won,
            score=score,
        )
