"""Prompts from template files, and the target texts of supervised training.

Template files (Jinja2): ``templates/<style>/forward.jinja``, ``reflect.jinja`` and ``demos.jinja``; a folder
of the user's own may hold a file of the same name, which then replaces it. Variables in forward:
instructions, demonstrations (the text that demos made, "" for none), goal, observation, admissible, history,
step, max_steps; in reflect: instructions, goal, steps, won, score, first_observation; in demos: episodes,
judged (bool: steps have progress); in all: progress (bool), think ("required", "optional", "off") and report
("before" or "after" the action). An unknown variable is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from repro_rl.errors import ConfigError
from repro_rl.text.parse import TAG, TextFormat, parse_forward

TEMPLATES = Path(__file__).parent / "templates"
FORWARD, REFLECT, DEMOS = "forward.jinja", "reflect.jinja", "demos.jinja"
CHAT = ("chat_first.jinja", "chat_next.jinja", "chat_reflect.jinja")  # turns of a conversation, see text.chat


@dataclass(frozen=True, slots=True)
class ReflectStep:
    """One step as the reflection prompt shows it."""

    t: int  # 1-based
    observation_before: str
    action: str  # "" is written as "none"
    feedback: str  # the observation after the action
    brief: str  # its short form, for the compact style


@dataclass(frozen=True, slots=True)
class ShownStep:
    """One step of a demonstration in a prompt."""

    t: int  # 1-based
    observation: str  # before the action
    action: str
    brief: str  # short form of the observation after the action
    progress: int | None  # after the step, 0..100; None: not shown


@dataclass(frozen=True, slots=True)
class ShownEpisode:
    """A demonstration in a prompt."""

    goal: str
    first_observation: str
    steps: tuple[ShownStep, ...]


def one_line(text: str) -> str:
    """``text`` on one line with single spaces."""
    return " ".join(text.split())


class PromptBuilder:
    """Renders prompts and target texts in one format. Templates are compiled once, here.

    ``history``: how many past (observation, action) pairs a forward prompt shows; the compact style shows
    none. ``template_dir``: a folder with replacements for either template file. ``resolution``: progress in
    *targets* is a multiple of this divisor of 100 (1..50; 10 suits tiny models).
    Raises ConfigError for a bad setting, and for a missing or broken template, naming the file.
    """

    def __init__(
        self, fmt: TextFormat, history: int = 2, template_dir: Path | None = None, *, resolution: int = 1
    ) -> None:
        if history < 0:
            raise ConfigError(f"text.history is {history}; give 0 or more past steps to show.")
        if not 1 <= resolution <= 50 or 100 % resolution:
            raise ConfigError(
                f"text.resolution is {resolution}; give a divisor of 100 up to 50, such as 1 or 10."
            )
        self.fmt, self.resolution = fmt, resolution
        self.history = 0 if fmt.style == "compact" else history
        folders = [TEMPLATES / fmt.style]
        if template_dir is not None:
            folder = Path(template_dir)
            if not any((folder / name).is_file() for name in (FORWARD, REFLECT, DEMOS, *CHAT)):
                raise ConfigError(
                    f"The template folder {folder} holds neither {FORWARD} nor {REFLECT} nor {DEMOS}; add "
                    f"one of them or of {', '.join(CHAT)}, or leave the setting out to use the templates in "
                    f"{folders[0]}."
                )
            folders.insert(0, folder)
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folders),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,
            auto_reload=False,
        )
        self._forward = self._compile(environment, FORWARD, folders)
        self._reflect = self._compile(environment, REFLECT, folders)
        self._demos = self._compile(environment, DEMOS, folders)
        self.chat = {name: self._compile(environment, name, folders) for name in CHAT}

    @staticmethod
    def _compile(environment: jinja2.Environment, name: str, folders: list[Path]) -> jinja2.Template:
        path = next((folder / name for folder in folders if (folder / name).is_file()), folders[-1] / name)
        try:
            return environment.get_template(name)
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(
                f"The template {path}, line {error.lineno}, is broken: {error.message}; correct it."
            ) from error
        except jinja2.TemplateNotFound as error:
            raise ConfigError(f"The template {path} is missing; reinstall the package or add it.") from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"The template {path} cannot be read as UTF-8 text: {error}") from error

    def render(self, template: jinja2.Template, **variables: object) -> str:
        """A template of this builder with its format's variables. Raises ConfigError when it fails."""
        try:
            return template.render(
                progress=self.fmt.progress, think=self.fmt.think, report=self.fmt.report, **variables
            )
        except Exception as error:  # a template is foreign code: whatever it raises is its own fault
            raise ConfigError(f"The template {template.filename} cannot be rendered: {error}") from error

    def forward(
        self,
        *,
        instructions: str,
        goal: str,
        observation: str,
        admissible: Sequence[str],
        history: Sequence[tuple[str, str]],
        step: int,
        max_steps: int,
        demonstrations: str = "",
    ) -> str:
        """The prompt for step ``step`` (1-based). ``history``: past (observation, action), oldest first.

        ``demonstrations``: what ``PromptBuilder.demonstrations`` made. Full style: what does not change
        during an episode comes first. Compact style: exactly one line, demonstrations, the observation and
        then the word ``act``, or ``progress`` when progress is to be reported.
        Raises ConfigError when the template fails, or leaves the demonstrations out.
        """
        compact = self.fmt.style == "compact"
        text = self.render(
            self._forward,
            instructions=instructions,
            goal=goal,
            observation=one_line(observation) if compact else observation,
            admissible=admissible,
            history=list(history)[-self.history :] if self.history else [],
            step=step,
            max_steps=max_steps,
            demonstrations=demonstrations,
        )
        if demonstrations not in text:
            raise ConfigError(
                f"The template {self._forward.filename} leaves out the demonstrations; write "
                "{{ demonstrations }} where they belong."
            )
        return text

    def demonstrations(self, episodes: Sequence[ShownEpisode]) -> str:
        """The block of demonstrations that a forward prompt shows; "" for none.

        Compact style: ``demo <first observation> (<action> <brief> [p<progress>])... now``. Progress is
        written as targets write it. Raises ConfigError when the template fails.
        """
        if not episodes:
            return ""
        line = one_line if self.fmt.style == "compact" else str.strip
        shown = [
            ShownEpisode(
                line(episode.goal),
                line(episode.first_observation),
                tuple(
                    ShownStep(
                        step.t,
                        line(step.observation),
                        line(step.action),
                        line(step.brief),
                        None if step.progress is None else self.round_progress(step.progress),
                    )
                    for step in episode.steps
                ),
            )
            for episode in episodes
        ]
        judged = any(step.progress is not None for episode in shown for step in episode.steps)
        return self.render(self._demos, episodes=shown, judged=judged).strip()

    def reflect(
        self,
        *,
        instructions: str,
        goal: str,
        steps: Sequence[ReflectStep],
        won: bool,
        score: float,
        first_observation: str,
    ) -> str:
        """The prompt that shows a finished episode with its outcome and asks for P_1..P_T.

        Compact style: one line, ``reflect won|lost <first observation> (<action> <brief> t<t>)... judge``.
        The first observation is given in full: what does not change, such as walls, stands only there.
        Raises ConfigError when the template fails.
        """
        if self.fmt.style == "compact":
            first_observation = one_line(first_observation)
            steps = [
                ReflectStep(step.t, "", one_line(step.action) or "none", "", one_line(step.brief))
                for step in steps
            ]
        return self.render(
            self._reflect,
            instructions=instructions,
            goal=goal,
            steps=steps,
            won=won,
            score=score,
            first_observation=first_observation,
        )

    def round_progress(self, value: int) -> int:
        """``value`` (0..100) as targets write it: the nearest multiple of ``resolution``, halves up.

        0 and 100 are kept for exactly 0 and 100: with resolution 10, 95..99 become 90 and 1..4 become 10
        (our decision: "finished" and "nothing yet" are claims, not roundings). Raises ConfigError outside
        0..100.
        """
        if not 0 <= value <= 100:
            raise ConfigError(f"Progress {value} is outside 0..100; a target text cannot hold it.")
        if value in (0, 100):
            return value
        nearest = (2 * value + self.resolution) // (2 * self.resolution) * self.resolution
        return min(max(nearest, self.resolution), 100 - self.resolution)

    def render_forward_target(self, online: int | None, action: str, think: str = "") -> str:
        """The completion that parses back to ``round_progress(online)`` and ``action`` without a defect.

        ``online`` is left out when the format has no progress, ``think`` where it has no thoughts. The action
        comes back stripped, in compact style with single spaces.
        Raises ConfigError for what cannot be written in this format.
        """
        if self.fmt.progress and online is None:
            raise ConfigError("A forward target in a format with progress needs a progress value; got None.")
        number = self.round_progress(online) if self.fmt.progress and online is not None else None
        if self.fmt.style == "compact":
            action = one_line(action)
            parts = [action] if number is None else [f"p{number}", action]
            text = " ".join(parts if self.fmt.report == "before" else reversed(parts))
        else:
            action = action.strip()
            report = "" if number is None else f"<progress>{number}</progress>"
            parts = [report, f"<action>{action}</action>"]
            text = self._thought(think) + "".join(parts if self.fmt.report == "before" else reversed(parts))
        parsed = parse_forward(text, self.fmt)
        if parsed.defects or parsed.action != action:
            raise ConfigError(
                f"The action {action[:80]!r} cannot be a training target: it reads back with "
                f"{', '.join(parsed.defects) or 'another action'}. It must not be empty or hold the tags."
            )
        return text

    def render_reflection_target(self, values: Sequence[int], think: str = "") -> str:
        """The completion that parses back to the rounded ``values`` P_1..P_T. ConfigError when empty."""
        if not values:
            raise ConfigError("A reflection target needs at least one value; the episode has no steps.")
        numbers = list(enumerate(map(self.round_progress, values), 1))
        if self.fmt.style == "compact":
            return " ".join(f"t{t} p{number}" for t, number in numbers)
        lines = "\n".join(f"step {t}: {number}" for t, number in numbers)
        return f"{self._thought(think)}<progress>\n{lines}\n</progress>"

    def _thought(self, think: str) -> str:
        """The thought with its tags; nothing where it is off, or empty and not required."""
        if self.fmt.think == "off" or (self.fmt.think == "optional" and not think.strip()):
            return ""
        if TAG.search(think):
            raise ConfigError("A thought in a training target must not hold <think>, <progress> or <action>.")
        return f"<think>{think}</think>"

    def words(self, max_steps: int, *, demonstrations: bool = False) -> set[str]:
        """Compact style: every word that the shipped templates and targets add to the environment's own.

        ``max_steps`` is the longest episode: it bounds t1..tT. ``demonstrations``: prompts may show some; a
        model that never meets them does without their words. Raises ConfigError in full style.
        """
        if self.fmt.style != "compact":
            raise ConfigError("Only the compact style has a closed set of words; text.style is 'full'.")
        words = {"act", "progress", "reflect", "won", "lost", "judge", "none"}
        words |= {"demo", "now"} if demonstrations else set()
        words |= {f"t{t}" for t in range(1, max_steps + 1)}
        return words | {f"p{value}" for value in range(0, 101, self.resolution)}
