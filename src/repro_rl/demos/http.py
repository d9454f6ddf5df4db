"""The annotator ``http``: an external model writes the progress (paper: DeepSeek-V4; decision D32).

It gets the reflection prompt in full style, whatever style the agent uses. After an answer that cannot be
parsed it is asked again in the same conversation, with a note of what was wrong. An episode without a
readable answer stays unlabelled. Every answer is stored as it arrives, so a repeated annotation asks only for
what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repro_rl.config import ApiSection, PromptSection
from repro_rl.demos.annotation import AnnotationContext
from repro_rl.errors import ConfigError
from repro_rl.policy.http.answers import Answer
from repro_rl.policy.http.client import ChatClient
from repro_rl.policy.http.failure_tracker import Failure
from repro_rl.policy.http.identity import server_identity
from repro_rl.policy.http.policy import Messages, completion_of
from repro_rl.policy.http.request import Question
from repro_rl.rollout.act import CUT_OFF
from repro_rl.rollout.reflection import NO_ANSWER, read_reflection, reflection_prompt
from repro_rl.text.digests import template_digests
from repro_rl.text.parse import TextFormat
from repro_rl.text.prompts import PromptBuilder
from repro_rl.types import Reflection, Trajectory

NEEDS_API = "The annotator 'http' needs the settings api.base_url and api.model."
ANNOTATION = ("annotate_tries", "annotate_temperature", "annotate_tokens")  # settings of ``api``
MAX_QUOTED = 2_000  # characters of an unreadable answer that are sent back to the model

NOTES = {
    CUT_OFF: "it was too long and was cut off",
    "filtered": "a content filter stopped it",
    "refused": "it refuses the task, which is only to rate the steps of a game",
    "tool_call": "it calls a tool; there are none",
    "reasoning_only": "it holds reasoning only, and no answer",
    "empty": "it is empty",
    "cut": "it was cut off before its first word",
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


def annotation_settings(api: ApiSection, prompt: PromptSection) -> dict[str, Any]:
    """What the labels depend on: the server, how it is asked, and the templates that ask it.

    Demonstrations made with others are not continued.
    """
    server = server_identity(api)
    asked = api.model_dump(mode="json", include=set(ANNOTATION))
    return {**server, **template_digests("full", _own_templates(prompt)), "api": {**server["api"], **asked}}


def _own_templates(prompt: PromptSection) -> Path | None:
    """A user's templates where they ask the annotator: those of the full style do."""
    return prompt.template_dir if prompt.style == "full" else None


def annotation_prompts(prompt: PromptSection) -> PromptBuilder:
    """The full-style reflection prompt; templates of the user's own count when they are of that style."""
    return PromptBuilder(
        TextFormat("full", progress=True, think="optional"), template_dir=_own_templates(prompt)
    )


def annotate_by_api(trajectories: Sequence[Trajectory], context: AnnotationContext) -> list[Reflection]:
    """One Reflection an episode, in order. Raises ApiError and BudgetError; answers so far stay stored.

    Raises ApiError also when no question at all got a text, and ConfigError without ``context.config``.
    """
    if context.config is None:
        raise ConfigError(NEEDS_API)
    client = ChatClient(context.config.api)
    section, prompts = client.section, annotation_prompts(context.config.prompt)
    texts = [reflection_prompt(t, prompts, context.instructions) for t in trajectories]
    conversations: dict[int, Messages] = {index: (("user", text),) for index, text in enumerate(texts)}
    done: dict[int, Reflection] = {}
    with client:
        for attempt in range(section.annotate_tries):
            waiting = sorted(conversations)
            questions = [
                Question(conversations[index], section.annotate_tokens, section.annotate_temperature)
                for index in waiting
            ]
            # Each episode counts once, at its first answer, however often it is asked again.
            answers = client.ask(questions, context.on_done if attempt == 0 else None)
            for index, answer in zip(waiting, answers, strict=True):
                reflection = _read(trajectories[index], texts[index], answer, prompts)
                done[index] = reflection
                if reflection.values is not None or isinstance(answer, Failure):
                    del conversations[index]
                else:
                    conversations[index] = _ask_again(
                        conversations[index], reflection, len(trajectories[index].steps)
                    )
            if not conversations:
                break
        client.check()
        context.notes |= {"model": section.model, "usage": client.spending.summary()}
    return [done[index] for index in range(len(trajectories))]


def _read(
    trajectory: Trajectory, prompt: str, answer: Answer | Failure, prompts: PromptBuilder
) -> Reflection:
    completion = completion_of(answer)
    if isinstance(answer, Failure):
        return Reflection(prompt, completion, None, (answer.cause if answer.refused else NO_ANSWER,))
    if answer.cause:
        return Reflection(prompt, completion, None, (answer.cause,))
    return read_reflection(trajectory, prompt, completion, prompts.fmt, shortened=False)


def _ask_again(messages: Messages, reflection: Reflection, length: int) -> Messages:
    """The conversation with the unreadable answer and a note of what is wrong with it."""
    wrong = "; ".join(NOTES.get(name, name.replace("_", " ")) for name in reflection.defects)
    note = (
        f"That answer cannot be used: {wrong}. Answer again: exactly {length} lines, step 1 to "
        f"step {length}, inside <progress> and </progress>, and nothing after it."
    )
    answer = reflection.completion.text.strip()[:MAX_QUOTED]
    if not answer:  # some servers refuse an empty turn
        (role, text) = messages[-1]
        return (*messages[:-1], (role, f"{text}\n\n{note}"))
    return (*messages, ("assistant", answer), ("user", note))
