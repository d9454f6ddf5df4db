"""The annotator ``http``: an external model writes the progress (METHOD: DeepSeek-V4 in the paper).

It gets the reflection prompt in full style, whatever style the agent uses. An answer that cannot be read is
asked for again in the same conversation with a note of what was wrong; what stays unreadable leaves the
episode unlabelled. Every answer is kept as it arrives, so a killed annotation goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from repro_rl.config import RunConfig
from repro_rl.demos.annotators import AnnotationContext
from repro_rl.errors import ConfigError
from repro_rl.policy.http.answers import Answer
from repro_rl.policy.http.client import ChatClient, Failure, Question
from repro_rl.policy.http.policy import completion_of
from repro_rl.rollout.reflect import CUT_OFF, NO_ANSWER, reflection_prompt
from repro_rl.text.parse import TextFormat, parse_reflection
from repro_rl.text.prompts import PromptBuilder
from repro_rl.types import Reflection, Trajectory

Talk = tuple[tuple[str, str], ...]  # (role, content)
SHOWN = 2_000  # characters of an unreadable answer that are shown to the model again

NOTES = {
    CUT_OFF: "it was too long and was cut off",
    "no_values": "it holds no line of the form 'step 1: 10'",
    "wrong_count": "it has not exactly one line for each step",
    "wrong_order": "its steps are not numbered 1, 2, 3, ... in order",
    "bad_value": "a value is not a whole number",
    "out_of_range": "a value is not between 0 and 100",
    "bad_line": "a line inside <progress> is not of the form 'step 1: 10'",
    "text_outside": "there is text outside the tags",
    "progress_not_closed": "</progress> is missing",
    "duplicate_progress": "there is more than one <progress>",
}


def deciding_settings(config: RunConfig) -> dict[str, Any]:
    """The settings that decide what the annotator says; demonstrations made with others are not continued."""
    names = {
        *("model", "reasoning_tokens", "extra", "limit_field", "send_seed"),
        *("annotate_tries", "annotate_temperature", "annotate_tokens"),
    }
    return {"api": config.api.model_dump(mode="json", include=names)}


def annotation_prompts(config: RunConfig) -> PromptBuilder:
    """The full-style reflection prompt; templates of the user's own count when they are of that style."""
    full = config.prompt.style == "full"
    return PromptBuilder(
        TextFormat("full", progress=True, think="optional"),
        template_dir=config.prompt.template_dir if full else None,
    )


def open_client(config: RunConfig | None) -> ChatClient:
    """The client of the section ``api``. Raises ConfigError when address, model or key are missing."""
    if config is None:
        raise ConfigError("The annotator 'http' needs the settings api.base_url and api.model.")
    return ChatClient(config.api)


def annotate_by_api(trajectories: Sequence[Trajectory], context: AnnotationContext) -> list[Reflection]:
    """One Reflection an episode, in order. Raises ApiError and BudgetError; what was answered is kept."""
    client = open_client(context.config)
    section, prompts = client.settings, annotation_prompts(context.config or RunConfig())
    texts = [reflection_prompt(t, prompts, context.instructions) for t in trajectories]
    talks: dict[int, Talk] = {index: (("user", text),) for index, text in enumerate(texts)}
    done: dict[int, Reflection] = {}
    with client:
        for attempt in range(section.annotate_tries):
            waiting = sorted(talks)
            questions = [
                Question(talks[index], section.annotate_tokens, section.annotate_temperature)
                for index in waiting
            ]
            # The bar moves with the first answers; asking again happens at its end.
            answers = client.ask(questions, context.on_done if attempt == 0 else None)
            for index, answer in zip(waiting, answers, strict=True):
                reflection = _read(texts[index], answer, prompts, len(trajectories[index].steps))
                done[index] = reflection
                if reflection.values is not None or isinstance(answer, Failure):
                    del talks[index]
                else:
                    talks[index] = _asked_again(talks[index], reflection, len(trajectories[index].steps))
            if not talks:
                break
        context.notes |= {"model": section.model, "usage": client.spending.summary()}
    return [done[index] for index in range(len(trajectories))]


def _read(prompt: str, answer: Answer | Failure, prompts: PromptBuilder, length: int) -> Reflection:
    completion = completion_of(answer)
    if isinstance(answer, Failure):
        return Reflection(prompt, completion, None, ("refused" if answer.refused else NO_ANSWER,))
    parsed = parse_reflection(completion.text, prompts.fmt, length)
    if not completion.finished:
        return Reflection(prompt, completion, None, (*parsed.defects, CUT_OFF))
    return Reflection(prompt, completion, parsed.values, parsed.defects)


def _asked_again(talk: Talk, reflection: Reflection, length: int) -> Talk:
    """The conversation with the unreadable answer and a note of what is wrong with it."""
    wrong = "; ".join(NOTES.get(name, name.replace("_", " ")) for name in reflection.defects)
    note = (
        f"That answer cannot be used: {wrong}. Answer again: exactly {length} lines, step 1 to "
        f"step {length}, inside <progress> and </progress>, and nothing after it."
    )
    answer = reflection.completion.text.strip()[:SHOWN]
    if not answer:  # some servers refuse an empty turn
        (role, text) = talk[-1]
        return (*talk[:-1], (role, f"{text}\n\n{note}"))
    return (*talk, ("assistant", answer), ("user", note))
