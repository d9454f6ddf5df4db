"""Preflight: what would certainly fail hours later is said before anything expensive starts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from repro_rl.config import RunConfig
from repro_rl.envs.base import TextEnv
from repro_rl.errors import PreflightError
from repro_rl.policy import TransformersPolicy
from repro_rl.policy.encode import plain_ids
from repro_rl.policy.turns import Turns
from repro_rl.rollout.chat import fit_turn, reserved
from repro_rl.rollout.fit import Fitted, fitting_prompt
from repro_rl.text.chat import ChatPrompts
from repro_rl.text.prompts import PromptBuilder
from repro_rl.train.contexts import chat_room, is_chat

CHECKPOINT_COPIES = 3  # trained weights and two Adam moments


def check_prompt(
    config: RunConfig, env: TextEnv, policy: TransformersPolicy, prompts: PromptBuilder, task: str
) -> None:
    """The first prompt of ``task`` must fit, and must be readable by the tokenizer. Raises PreflightError."""
    observation, info = env.reset(options={"task": task})
    parts: dict[str, Any] = {
        "instructions": env.instructions,
        "goal": info["goal"],
        "observation": observation,
        "admissible": info["admissible"],
        "step": 1,
        "max_steps": env.max_steps,
    }
    if is_chat(config):
        fitted, text = _first_turn(config, policy, prompts, parts)
    else:
        fitted = fitting_prompt(policy, prompts, config.prompt.max_prompt_tokens, [""], [], **parts)
        text = prompts.forward(history=[], **parts) if fitted is None else fitted.text
    ids = policy.encode(text)
    if fitted is None and is_chat(config):
        room = chat_room(config, policy)
        raise PreflightError(
            f"The first turn of {task} has {len(ids)} tokens; with an answer of {room.answer} and a "
            f"reflection of {room.reflection} (prompt.action_tokens, prompt.reflect_new_tokens) that is too "
            f"much for turns of {room.turn} (prompt.max_prompt_tokens) and conversations of "
            f"{room.conversation} (prompt.max_chat_tokens, or the model's positions)."
        )
    if fitted is None:
        raise PreflightError(
            f"The first prompt of {task} has {len(ids)} tokens, prompt.max_prompt_tokens is "
            f"{config.prompt.max_prompt_tokens}; raise it or use a shorter style."
        )
    positions = policy.positions
    if positions and len(ids) + config.prompt.action_tokens > positions:
        raise PreflightError(
            f"The first prompt of {task} has {len(ids)} tokens and prompt.action_tokens is "
            f"{config.prompt.action_tokens}, but the model has {positions} positions."
        )
    unknown = policy.tokenizer.unk_token_id
    if unknown is not None and unknown in ids:
        words = [w for w in text.split() if unknown in plain_ids(policy.tokenizer, w)]
        raise PreflightError(
            f"The tokenizer does not know {', '.join(map(repr, words[:5]))} in the first prompt of {task}: "
            f"the model was built for other env or prompt settings. Use the settings of its warmup, "
            f"or run a new warmup."
        )


def check_target(name: str, limit: int, needed: int) -> None:
    """A demonstrated completion must fit the setting ``name``. Raises PreflightError."""
    if needed > limit:
        raise PreflightError(f"{name} is {limit}, but a demonstration needs {needed} tokens; raise it.")


def _first_turn(
    config: RunConfig, policy: TransformersPolicy, prompts: PromptBuilder, parts: dict[str, Any]
) -> tuple[Fitted | None, str]:
    """The first turn of a conversation as it is played, None where it does not fit, and its text."""
    room, turns, chat = chat_room(config, policy), Turns(policy), ChatPrompts(prompts)
    kept = reserved(chat, lambda text: len(turns.following(text)), room, parts["goal"], 1)
    free = room.conversation - room.answer - kept
    fitted = fit_turn(chat, lambda text: len(turns.first(text)), room.turn, free, [""], **parts)
    return fitted, chat.act(**parts) if fitted is None else fitted.text


def check_thinking(config: RunConfig, policy: TransformersPolicy) -> None:
    """Qwen3's switch and the format must agree on thoughts. Raises PreflightError.

    Templates without such a switch (Qwen2.5) may go with any format.
    """
    if not policy.chat or config.prompt.style == "compact":
        return
    on, off = (policy.render("x", thinking) for thinking in (True, False))
    if on == off:
        return
    if config.prompt.think == "required" and not policy.thinking:
        raise PreflightError(
            "prompt.think is 'required', but with policy.thinking=false the chat template closes the thought "
            "before the answer begins; set policy.thinking=true, or prompt.think to optional or off."
        )
    if config.prompt.think == "off" and policy.thinking:
        raise PreflightError(
            "prompt.think is 'off', but with policy.thinking=true the model begins with a thought, which "
            "counts as a defect; set policy.thinking=false, or prompt.think to optional or required."
        )


def check_disk(config: RunConfig, out: Path, policy: TransformersPolicy) -> None:
    """Room for the checkpoints that are kept, and one more while it is written. Raises PreflightError."""
    weights = sum(p.numel() * p.element_size() for p in policy.model.parameters() if p.requires_grad)
    needed = weights * CHECKPOINT_COPIES * (config.train.keep + 2)
    out.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise PreflightError(
            f"Checkpoints need about {needed / 1e9:.1f} GB in {out}, {free / 1e9:.1f} GB are free; "
            f"lower train.keep or use another disk."
        )
