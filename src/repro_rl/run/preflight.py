"""Checks before anything expensive starts, of what would certainly fail hours later.

Commands call ``preflight`` with what they are about to do; the other checks need a model or a run folder.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from repro_rl.config import PromptSection, RunConfig, check_trainable
from repro_rl.config.problems import Problem
from repro_rl.demos.annotators import ANNOTATORS
from repro_rl.envs.base import TextEnv, panel_of
from repro_rl.envs.contract import check_progress
from repro_rl.errors import PreflightError, UnknownNameError, require_extra
from repro_rl.policy.tokens.chat_template import TEMPLATE_DATE, ChatTemplate
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.rollout.context import Context
from repro_rl.run.actions import check_actions
from repro_rl.run.answer_length import answer_lengths, check_answers
from repro_rl.run.answer_text import misread_reflection
from repro_rl.run.lineage import (
    check_context,
    other_settings,
    other_templates,
    taught_prompt,
    untaught_prompts,
    untaught_scoring,
)
from repro_rl.run.model_paths import checkpoint_folders
from repro_rl.run.panels import PanelOf, Use, check_panels, eval_panel
from repro_rl.run.trackers import check_callbacks
from repro_rl.text.parse import TextFormat
from repro_rl.text.prompts import PromptBuilder

CHECKPOINT_COPIES = 3  # trained weights and two Adam moments


def preflight(
    config: RunConfig,
    env: TextEnv,
    now: Collection[Use],
    *,
    panel: PanelOf | None = None,
    model: str | Path | None = None,
) -> list[str]:
    """All that can be known before a command plays a task or loads a model; ``now``: what it plays tasks for.

    ``panel``: that of ``env``, where the caller keeps panels. ``model``: which acts, where it is there
    already.
    Raises what ``check_trainable``, ``check_panels``, ``check_truth``, ``check_actions`` and
    ``check_context`` raise. Returns
    sentences on what cannot be meant and on what a later evaluation would lack. Others are on actions that no
    answer can hold, and on prompts that the model was not taught.
    """
    if Use.TRAIN in now:
        check_trainable(config)
    panel = panel or partial(panel_of, env)
    found = check_panels(config, panel, now)
    check_truth(config, env, panel, now)
    tasks, answers = _played_tasks(config, panel, now), _answers(config, now)
    if (unheld := check_actions(env, tasks, answers, expert=Use.DEMOS in now)) is not None:
        found.append(unheld)
    if model is None:
        return found
    taught = taught_prompt(model)
    check_context(config.prompt, model, taught)
    remarks = (
        other_settings(config.prompt, model, taught),
        other_templates(config.prompt, config.method, model, taught),
        untaught_prompts(config.method, model),
        untaught_scoring(config.method, model) if Use.TRAIN in now else None,
    )
    return [*(line for line in remarks if line is not None), *found]


def _played_tasks(config: RunConfig, panel: PanelOf, now: Collection[Use]) -> Sequence[str]:
    """The tasks of one of the panels that are played now; those for which it exists were checked before."""
    splits = {
        Use.DEMOS: config.demos.split,
        Use.TRAIN: config.train.split,
        Use.VALIDATION: config.eval.validation_split,
    }
    for use, split in splits.items():
        if use in now:
            return panel(split).ids
    return eval_panel(config.eval, panel).ids if Use.EVAL in now else ()


def _answers(config: RunConfig, now: Collection[Use]) -> TextFormat:
    """The form of the answers that act; demonstrations are also taught with progress."""
    section = config.prompt
    progress = config.method.progress or Use.DEMOS in now
    return TextFormat(section.style, progress, section.think, section.report)


def check_installed(config: RunConfig) -> None:
    """What a later training needs beside its tasks: trackers, callbacks, the package of adapters.

    Raises what ``check_callbacks`` raises, and MissingDependencyError where adapters cannot be trained.
    """
    check_callbacks(config.train)
    if config.policy.lora.rank:
        require_extra("peft")


def check_prompt(
    context: Context, prompts: PromptBuilder, codec: TextCodec, task: str, *, reflects: bool = False
) -> list[str]:
    """The first prompt of ``task`` must fit, the tokenizer know its words, and an answer fit its limit.

    The tokenizer must also be able to write answers, and with ``reflects`` reflections.
    Raises PreflightError. Returns, as sentences, which answers would be cut off or cannot be written.
    """
    problem = unknown_words(context, prompts, codec, task)
    if problem is not None:
        raise PreflightError(
            f"{problem} Use the settings of its warmup, or run a new warmup. In an environment of your own, "
            "let vocabulary() name all its words first, or play more demonstrations."
        )
    found = answer_lengths(context.pool.first, task, prompts, codec)
    remarks = check_answers(context.limits.action, prompts.fmt, found)
    unwritten = misread_reflection(prompts, codec) if reflects else None
    if unwritten is not None:
        raise PreflightError(unwritten)
    return remarks


def unknown_words(context: Context, prompts: PromptBuilder, codec: TextCodec, task: str) -> str | None:
    """A sentence on words of the first prompt of ``task`` that the tokenizer does not know; None: no such.

    Raises PreflightError for a prompt that does not fit.
    """
    unknown = codec.unknown_words(context.first_prompt(prompts, codec, task))
    if not unknown:
        return None
    return (
        f"The tokenizer does not know {', '.join(map(repr, unknown[:5]))} in the first prompt of {task}: "
        "the model was built for other env or prompt settings, or without these words."
    )


def check_model_text(prompt: PromptSection, codec: TextCodec) -> None:
    """Whether a model's chat template can serve these prompts, wherever the model is used.

    Its thoughts must go with the format, and in chat context its conversations must be able to grow. Warns of
    a template that writes the date. Raises PreflightError.
    """
    template = codec.template
    if template is None:
        return
    check_thinking(prompt, template)
    if prompt.context == "chat" and template.conversation_problem is not None:
        raise PreflightError(
            f"prompt.context is 'chat', but the chat template of {template.name} "
            f"{template.conversation_problem}; use prompt.context=window or policy.chat=off."
        )
    if template.dated:
        warnings.warn(
            f"The chat template of {template.name} writes today's date. It is fixed to "
            f"{TEMPLATE_DATE:%Y-%m-%d}, so that prompts are the same every day.",
            stacklevel=2,
        )


def check_thinking(prompt: PromptSection, template: ChatTemplate) -> None:
    """A chat template and the format must agree on thoughts. Raises PreflightError.

    A thought in other tags than <think> is refused. Templates without a switch that neither open nor close a
    thought (Qwen2.5) may go with any format.
    """
    if template.other_thought:
        raise PreflightError(
            f"The chat template of {template.name} opens a thought with {template.other_thought} before "
            "every answer, and answers here close a thought with </think> alone. Have the template write "
            "<think> there (chat_template.jinja), or nothing, or do without it: policy.chat=off."
        )
    forbidden, required = not prompt.thinks, prompt.style == "full" and prompt.think == "required"
    switch = template.has_switch
    if required and (template.thought == "closed" or (switch and not template.thinking)):
        raise PreflightError(
            "prompt.think is 'required', but with policy.thinking=false the chat template closes the thought "
            "before the answer begins; set policy.thinking=true, or prompt.think to optional or off."
            if switch
            else f"prompt.think is 'required', but the chat template of {template.name} closes the thought "
            "before the answer begins; set prompt.think to optional or off."
        )
    if forbidden and template.thought == "open" and not (switch and template.thinking):
        raise PreflightError(
            f"The chat template of {template.name} opens a thought before every answer, but the format has "
            "none; set prompt.think to optional or required (prompt.style=full), or policy.chat=off."
        )
    if prompt.style == "full" and forbidden and switch and template.thinking:
        raise PreflightError(
            "prompt.think is 'off', but with policy.thinking=true the model begins with a thought, which "
            "counts as a defect; set policy.thinking=false, or prompt.think to optional or required."
        )
    if template.thinking and not switch and template.thought != "open":
        raise PreflightError(
            f"policy.thinking is true, but the chat template of {template.name} has no such switch; set "
            "policy.thinking=false. prompt.think alone decides whether answers hold thoughts."
        )


def unknown_annotator(config: RunConfig) -> list[Problem]:
    """The problem with a name that only a later stage would look up, for ``load_config``."""
    try:
        ANNOTATORS.get(config.demos.annotator)
    except UnknownNameError as error:
        return [Problem(f"demos.annotator: {error}", ("demos", "annotator"))]
    return []


def check_truth(config: RunConfig, env: TextEnv, panel: PanelOf, now: Collection[Use]) -> None:
    """What reads the true progress must find some; ``now``: what the command plays tasks for.

    ``panel``: that of ``env``, or of a caller that keeps panels.
    Raises ConfigError naming the environment and the setting, and TaskError for an unknown split.
    """
    method = config.method
    if Use.TRAIN in now:
        for name in ("shaping", "alignment", "value_source"):
            if getattr(method, name) == "oracle":
                tasks = panel(config.train.split).ids
                check_progress(env, tasks, f"method.{name} is 'oracle' (method {method.name})")
    if Use.DEMOS in now and config.demos.annotator == "oracle":
        check_progress(env, panel(config.demos.split).ids, "demos.annotator is 'oracle'")


def check_disk(out: Path, model: Any, checkpoints: int) -> None:
    """The disk needs room for ``checkpoints`` of the model and one being written. Raises PreflightError.

    Those that a continued run has in ``out`` have their room already; one more is always written.
    """
    weights = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    more = max(1, checkpoints + 1 - len(checkpoint_folders(out)))
    needed = weights * CHECKPOINT_COPIES * more
    out.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise PreflightError(
            f"Checkpoints need about {needed / 1e6:,.1f} MB more in {out}, {free / 1e6:,.1f} MB are free; "
            f"lower train.keep or use another disk."
        )
