"""Prompts from template files, and the target texts of supervised training.

Template files (Jinja2) are ``templates/<style>/forward.jinja``, ``reflect.jinja`` and ``demos.jinja``, those
of conversations (``text.turns``), and in the full style answer.jinja and notice.jinja, which they include. A
file of the same name in ``template_dir`` replaces one. They are rendered in a sandbox (``text.sandbox``).
Their variables, of which an unknown one is an error:

- forward (the prompt of a step): instructions, demonstrations (the text of demos.jinja, "" for none), goal,
  observation, admissible, history, step, max_steps, notice
  - notice: "no_action" (the last answer had no action), "impossible" (the last action was refused), else ""
- reflect: instructions, goal, steps, won, score, first_observation
- demos: episodes, judged (bool: steps have progress)
- all: progress (bool), think ("required", "optional", "off"), report ("before" or "after" the action)
  - reflects: bool, the method asks for a reflection when an episode is over
  - of reflections that are guided, think is "off": they leave no room for a thought
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jinja2

from repro_rl.errors import ConfigError
from repro_rl.text.guided import GuidedText
from repro_rl.text.parse import TAG, TextFormat, held_action, parse_action, written_action
from repro_rl.text.sandbox import PromptEnvironment, render

TEMPLATES = Path(__file__).parent / "templates"
ACT, REFLECT, DEMOS = "forward.jinja", "reflect.jinja", "demos.jinja"
CHAT = ("chat_first.jinja", "chat_next.jinja", "chat_reflect.jinja")  # turns of a conversation: text.turns


# Why the last answer had no effect: it had no action, or its action was refused; "" where it had one.
Notice = Literal["", "no_action", "impossible"]


@dataclass(frozen=True, slots=True)
class StepInputs:
    """The inputs of the prompt of one step."""

    instructions: str  # the environment's rules
    goal: str  # the task in words
    observation: str  # the current one
    admissible: Sequence[str]  # actions that are possible now, in the environment's words
    step: int  # 1-based
    max_steps: int
    history: Sequence[tuple[str, str]] = ()  # past (observation, action), oldest first
    demonstrations: str = ""  # the text that ``PromptBuilder.demonstrations`` made
    example: str = "..."  # an action, for the example of an answer's form
    notice: Notice = ""  # why the last answer had no effect


@dataclass(frozen=True, slots=True)
class ReflectStep:
    """One step in the reflection prompt."""

    t: int  # 1-based
    observation_before: str
    action: str  # "" is rendered as "none"
    feedback: str  # the observation after the action
    brief: str  # a short form of the feedback, for the compact style


@dataclass(frozen=True, slots=True)
class DemoStep:
    """One step of a demonstration in a prompt."""

    t: int  # 1-based
    observation: str  # before the action
    action: str  # "" is rendered as "none"
    brief: str  # short form of the observation after the action
    progress: int | None  # after the step, 0..100; None: left out


@dataclass(frozen=True, slots=True)
class DemoEpisode:
    """A demonstration in a prompt."""

    goal: str  # the task in words
    first_observation: str
    steps: tuple[DemoStep, ...]  # [T]


def one_line(text: str) -> str:
    """``text`` on one line with single spaces."""
    return " ".join(text.split())


class PromptBuilder:
    """Renders prompts and target texts in one format. Templates are compiled once, when it is built.

    ``history``: the largest number of past (observation, action) pairs in a prompt; the compact style has
    none. ``template_dir``: a folder with replacements for template files. ``resolution``: progress in
    *targets* and demonstrations is a multiple of this divisor of 100 (1..50; 10 suits tiny models).
    ``admissible``: whether prompts list the actions that are possible now. Templates get an empty list where
    they do not; the package's compact templates never list them. ``tagged``: in full style they are listed
    as complete answers, which untrained models copy. ``reflects``: whether the method asks for reflections,
    which the first turn of a conversation announces. ``notices``: whether prompts say that the last answer
    had no effect; the compact ones never do. ``guided``: reflections are sampled as ``reflection_form``, not
    as free text.
    Raises ConfigError for an invalid setting, and for a missing or broken template, naming the file.
    """

    def __init__(
        self,
        fmt: TextFormat,
        history: int = 2,
        template_dir: Path | None = None,
        *,
        resolution: int = 1,
        admissible: bool = True,
        tagged: bool = False,
        notices: bool = False,
        guided: bool = False,
        reflects: bool = True,
    ) -> None:
        if history < 0:
            raise ConfigError(f"prompt.history is {history}; give 0 or more past steps.")
        if not 1 <= resolution <= 50 or 100 % resolution:
            raise ConfigError(
                f"prompt.resolution is {resolution}; give a divisor of 100 up to 50, such as 1 or 10."
            )
        if guided and fmt.think == "required":
            raise ConfigError(
                "prompt.reflect_form is 'guided': such a reflection has no thought, but prompt.think is "
                "'required'. Set prompt.think=optional (acting may still think), or prompt.reflect_form=free."
            )
        self.fmt, self.resolution, self.guided, self.reflects = fmt, resolution, guided, reflects
        self.history = 0 if fmt.style == "compact" else history
        # Only the package's own compact templates leave the admissible actions and notices out.
        roomy = fmt.style == "full" or template_dir is not None
        self.shows_admissible, self.shows_notices = admissible and roomy, notices and roomy
        self.tagged = tagged and fmt.style == "full"
        folders = [TEMPLATES / fmt.style]
        if template_dir is not None:
            folder = Path(template_dir)
            if not any((folder / name).is_file() for name in (ACT, REFLECT, DEMOS, *CHAT)):
                raise ConfigError(
                    f"The template folder {folder} holds neither {ACT} nor {REFLECT} nor {DEMOS}; add one of "
                    f"them or of {', '.join(CHAT)}, or leave prompt.template_dir out to use the templates in "
                    f"{folders[0]}."
                )
            folders.insert(0, folder)
        environment = PromptEnvironment(folders)
        self._act = self._compile(environment, ACT, folders)
        self._reflect = self._compile(environment, REFLECT, folders)
        self._demos = self._compile(environment, DEMOS, folders)
        self.chat = {name: self._compile(environment, name, folders) for name in CHAT}

    @staticmethod
    def _compile(environment: jinja2.Environment, name: str, folders: list[Path]) -> jinja2.Template:
        """The template ``name``. Raises ConfigError naming the file."""
        path = next((folder / name for folder in folders if (folder / name).is_file()), folders[-1] / name)
        try:
            template = environment.get_template(name)
            # jinja2 copies them at every rendering, and a chain of dicts is slow to copy.
            template.globals = dict(template.globals)
            return template
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(
                f"The template {path}, line {error.lineno}, is broken: {error.message}; correct it."
            ) from error
        except jinja2.TemplateNotFound as error:
            raise ConfigError(f"The template {path} is missing; reinstall the package or add it.") from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"The template {path} cannot be read as UTF-8 text: {error}") from error

    def render(self, template: jinja2.Template, **variables: object) -> str:
        """Render a template with ``variables`` and those of the format. Raises ConfigError when it fails."""
        try:
            fmt = {"progress": self.fmt.progress, "think": self.fmt.think, "report": self.fmt.report}
            fmt["reflects"] = self.reflects
            return render(template, {**fmt, **variables})
        except Exception as error:  # a template may be written by anybody, so it may raise anything
            raise ConfigError(f"The template {template.filename} cannot be rendered: {error}") from error

    def act(self, inputs: StepInputs) -> str:
        """The prompt that asks for an action, as one text.

        Full style: the part that is constant during an episode comes first, so that its keys and values can
        be reused. Compact style, one line: demonstrations, observation, then ``progress`` when progress is
        to be reported, otherwise ``act``. At most the last ``history`` pairs of the inputs are in it.
        Raises ConfigError when the template fails, or leaves the demonstrations out.
        """
        history = list(inputs.history)[-self.history :] if self.history else []
        return self.render_step(self._act, inputs, history)

    def render_step(
        self, template: jinja2.Template, inputs: StepInputs, history: Sequence[tuple[str, str]] = ()
    ) -> str:
        """Render ``template`` with the variables of a step. Raises ConfigError as ``act`` does."""
        compact = self.fmt.style == "compact"
        actions = inputs.admissible if self.shows_admissible else ()
        text = self.render(
            template,
            instructions=inputs.instructions,
            goal=inputs.goal,
            observation=one_line(inputs.observation) if compact else inputs.observation,
            admissible=[f"<action>{action}</action>" for action in actions] if self.tagged else actions,
            history=history,
            step=inputs.step,
            max_steps=inputs.max_steps,
            demonstrations=inputs.demonstrations,
            example=inputs.example,
            notice=inputs.notice if self.shows_notices else "",
        )
        if inputs.demonstrations not in text:
            raise ConfigError(
                f"The template {template.filename} leaves out the demonstrations; write "
                "{{ demonstrations }} where they belong."
            )
        return text

    def demonstrations(self, episodes: Sequence[DemoEpisode]) -> str:
        """The text of demonstrations for ``StepInputs.demonstrations``; "" for no episodes.

        Compact style: ``demo <first observation> (<action> <brief> [p<progress>])... now``. Progress is
        rounded as in targets. Raises ConfigError when the template fails.
        """
        if not episodes:
            return ""
        line = one_line if self.fmt.style == "compact" else str.strip
        written = [
            DemoEpisode(
                line(episode.goal),
                line(episode.first_observation),
                tuple(
                    DemoStep(
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
        judged = any(step.progress is not None for episode in written for step in episode.steps)
        return self.render(self._demos, episodes=written, judged=judged).strip()

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
        """The prompt with a finished episode and its outcome that asks for P_1..P_T.

        Compact style: one line, ``reflect won|lost <first observation> (<action> <brief> t<t>)... judge``.
        The first observation is complete, because the short forms leave out what is constant, such as walls.
        Raises ConfigError when the template fails.
        """
        if self.fmt.style == "compact":
            first_observation = one_line(first_observation)
            steps = [
                ReflectStep(step.t, "", one_line(step.action) or "none", "", one_line(step.brief))
                for step in steps
            ]
        return self.render_reflection(
            self._reflect,
            instructions=instructions,
            goal=goal,
            steps=steps,
            won=won,
            score=score,
            first_observation=first_observation,
        )

    def render_reflection(self, template: jinja2.Template, **variables: object) -> str:
        """Render ``template``, which asks for a reflection. Raises ConfigError when it fails."""
        think = "off" if self.guided else self.fmt.think
        return self.render(template, **variables, think=think)

    def round_progress(self, value: int) -> int:
        """``value`` (0..100) rounded to the nearest multiple of ``resolution``, halves up, as in targets.

        Only 0 becomes 0, and only 100 becomes 100 (decision D6): with resolution 10, 1..4 become 10 and
        95..99 become 90. Raises ConfigError outside 0..100.
        """
        if not 0 <= value <= 100:
            raise ConfigError(f"Progress {value} is outside 0..100; it cannot be written in a target.")
        if value in (0, 100):
            return value
        nearest = (2 * value + self.resolution) // (2 * self.resolution) * self.resolution
        return min(max(nearest, self.resolution), 100 - self.resolution)

    def action_target(self, online: int | None, action: str, think: str = "") -> str:
        """The completion that parses back to ``round_progress(online)`` and ``action`` without a defect.

        ``online`` is left out when the format has no progress, ``think`` when it has no thoughts. The action
        is parsed back stripped, in compact style with single spaces.
        Raises ConfigError for an action, value or thought that the format cannot express.
        """
        if self.fmt.progress and online is None:
            raise ConfigError(
                "A target that acts, in a format with progress, needs a progress value; got None."
            )
        number = self.round_progress(online) if self.fmt.progress and online is not None else None
        action = held_action(action, self.fmt)
        thought = "" if self.fmt.style == "compact" else self._thought(think)
        text = written_action(action, self.fmt, number, thought)
        parsed = parse_action(text, self.fmt)
        if parsed.defects or parsed.action != action:
            raise ConfigError(
                f"The action {action[:80]!r} cannot be a training target: it reads back with "
                f"{', '.join(parsed.defects) or 'another action'}. It must not be empty or contain the tags."
            )
        return text

    def reflection_target(self, values: Sequence[int], think: str = "") -> str:
        """The completion that parses back to the rounded ``values`` P_1..P_T.

        Raises ConfigError for no values, for a value outside 0..100, and for a thought with tags in it.
        """
        if not values:
            raise ConfigError("A reflection target needs at least one value; the episode has no steps.")
        numbers = list(enumerate(map(self.round_progress, values), 1))
        if self.fmt.style == "compact":
            return " ".join(f"t{t} p{number}" for t, number in numbers)
        lines = "\n".join(f"step {t}: {number}" for t, number in numbers)
        return f"{self._thought(think)}<progress>\n{lines}\n</progress>"

    def reflection_form(self, steps: int) -> GuidedText | None:
        """What is given and what is sampled in a guided reflection on ``steps`` steps; None: it is free text.

        Every value may be 0..100 (compact style: a multiple of ``resolution``), the last one of a success
        too. What the outcome demands is judged and anchored as in free text. There is no thought.
        """
        if not self.guided:
            return None
        numbers = range(1, steps + 1)
        if self.fmt.style == "compact":
            pieces = ["t1 p", *(f" t{t} p" for t in numbers[1:]), ""]
            return GuidedText(tuple(pieces), tuple(range(0, 101, self.resolution)))
        pieces = ["<progress>\nstep 1: ", *(f"\nstep {t}: " for t in numbers[1:]), "\n</progress>"]
        return GuidedText(tuple(pieces), tuple(range(101)))

    def _thought(self, think: str) -> str:
        """The thought with its tags; "" when thoughts are off, or when it is empty and optional."""
        if self.fmt.think == "off" or (self.fmt.think == "optional" and not think.strip()):
            return ""
        if TAG.search(think):
            raise ConfigError(
                "A thought in a training target must not contain <think>, <progress> or <action>."
            )
        return f"<think>{think}</think>"

    def words(self, max_steps: int, *, demonstrations: bool = False) -> set[str]:
        """Compact style: every word that the shipped templates and targets add to the environment's own.

        ``max_steps``: length of the longest episode, which bounds t1..tT. ``demonstrations``: include the
        words of demos.jinja. Raises ConfigError in full style.
        """
        if self.fmt.style != "compact":
            raise ConfigError(
                "prompt.style is 'full', but the tiny model is made of the words of compact prompts alone. "
                "Set prompt.style=compact, or give policy.model a model that reads text."
            )
        words = {"act", "progress", "reflect", "won", "lost", "judge", "none"}
        words |= {"demo", "now"} if demonstrations else set()
        words |= {f"t{t}" for t in range(1, max_steps + 1)}
        return words | {f"p{value}" for value in range(0, 101, self.resolution)}
