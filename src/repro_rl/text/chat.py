"""The turns of an episode that is one conversation: first observation, next observations, reflection.

Template files: ``templates/<style>/chat_first.jinja``, ``chat_next.jinja``, ``chat_reflect.jinja``, replaced
like those of ``PromptBuilder``. The first turn holds what a forward prompt holds; a next turn the new
observation and, in full style, the actions that are possible now; the reflection's turn what the last action
led to, the outcome, and the question. Variables as in forward.jinja and reflect.jinja; chat_reflect has
``observation`` (after the last action) and ``length`` (T) in the place of the steps.
"""

from __future__ import annotations

from collections.abc import Sequence

from repro_rl.errors import ConfigError
from repro_rl.text.prompts import CHAT, PromptBuilder, one_line

FIRST, NEXT, LAST = CHAT


class ChatPrompts:
    """Renders user turns in the format of ``prompts``. ``prompts.history`` plays no part."""

    def __init__(self, prompts: PromptBuilder):
        self.prompts, self.fmt = prompts, prompts.fmt

    def _seen(self, observation: str) -> str:
        return one_line(observation) if self.fmt.style == "compact" else observation

    def act(
        self,
        *,
        instructions: str,
        goal: str,
        observation: str,
        admissible: Sequence[str],
        step: int,
        max_steps: int,
        demonstrations: str = "",
    ) -> str:
        """The user turn that asks for step ``step`` (1-based).

        Compact style: ``<observation> act``, from step 2 on ``<observation> t<step - 1> act``, so that the
        reflection finds the state after each step; ``progress`` for ``act`` when progress is to be reported.
        Demonstrations stand in the first turn only. Raises ConfigError when the template fails, or leaves
        them out.
        """
        template = self.prompts.chat[FIRST if step == 1 else NEXT]
        text = self.prompts.render(
            template,
            instructions=instructions,
            goal=goal,
            observation=self._seen(observation),
            admissible=admissible,
            step=step,
            max_steps=max_steps,
            demonstrations=demonstrations,
        )
        if step == 1 and demonstrations not in text:
            raise ConfigError(
                f"The template {template.filename} leaves out the demonstrations; write "
                "{{ demonstrations }} where they belong."
            )
        return text

    def reflect(self, *, goal: str, observation: str, length: int, won: bool, score: float) -> str:
        """The user turn that gives the outcome and asks for P_1..P_T, T = ``length``.

        ``observation``: what the last action led to; "" leaves it out. Compact style:
        ``<observation> t<T> reflect won|lost judge``.
        """
        return self.prompts.render(
            self.prompts.chat[LAST],
            goal=goal,
            observation=self._seen(observation),
            length=length,
            won=won,
            score=score,
        )
