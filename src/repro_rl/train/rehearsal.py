"""Rehearsal: the warmup's labelled reflections, imitated a little beside every RL mini-batch.

RL pays the reflection for the outcome alone, and a judge trained on that forgets the states
(docs/results.md). Rehearsal shows it the labels of stage 1 again; no RL episode is ever labelled (our
decision).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from repro_rl.config import RunConfig
from repro_rl.demos.store import load_demos
from repro_rl.envs.base import TextEnv
from repro_rl.errors import PreflightError
from repro_rl.policy import TransformersPolicy
from repro_rl.random_streams import name_key
from repro_rl.recipe_files import read_settings
from repro_rl.text.prompts import PromptBuilder
from repro_rl.train.batch import Batch, collate, split_rows
from repro_rl.train.chat_warmup import ChatDemos
from repro_rl.train.contexts import is_chat
from repro_rl.train.parallel import ALONE, Ranks
from repro_rl.train.run_folder import read_manifest, run_of
from repro_rl.train.warmup import draw_halves, is_labelled, reflection_row
from repro_rl.types import Trajectory


class Rehearsal:
    """Draws labelled reflections, half of won episodes, as a pure function of seed, iteration and step.

    Raises PreflightError when no episode is labelled.
    """

    def __init__(
        self,
        episodes: Sequence[Trajectory],
        policy: TransformersPolicy,
        prompts: PromptBuilder,
        instructions: str,
        config: RunConfig,
        ranks: Ranks = ALONE,
        env: TextEnv | None = None,
    ):
        self._ranks = ranks  # each of them computes a part of the rows of a step
        known = [t for t in episodes if is_labelled(t)]
        self.won, self.lost = [t for t in known if t.won], [t for t in known if not t.won]
        if not known:
            raise PreflightError("method.rehearsal needs labelled episodes, and train.demos holds none.")
        self._policy, self._prompts, self._instructions = policy, prompts, instructions
        self._config = config
        self._chat: ChatDemos | None = None
        if is_chat(config):
            assert env is not None, "conversations are built with their environment"
            self._chat = ChatDemos(config, policy, env)

    def batches(self, iteration: int, step: int) -> list[Batch]:
        """``method.rehearsal`` reflections for one optimizer step, as micro-batches.

        Their losses add up to ``method.rehearsal_coef`` times the mean over the tokens.
        """
        config = self._config
        rng = np.random.default_rng(name_key(config.seed, "rehearsal", iteration, step))
        drawn = draw_halves(self.won, self.lost, config.method.rehearsal, rng)
        if self._chat is not None:
            rows = [
                self._chat.reflection(episode, self._prompts, config.seed, iteration, step, number)
                for number, episode in enumerate(drawn)
            ]
        else:
            limit = config.prompt.max_reflect_tokens
            rows = [
                reflection_row(episode, self._policy, self._prompts, self._instructions, limit)
                for episode in drawn
            ]
        chunks = split_rows(self._ranks.share_rows(rows), config.train.micro_tokens)
        scale = config.method.rehearsal_coef / sum(int(row.trained.sum()) for row in rows)
        return [
            collate(chunk, {"reflect": scale}, self._policy.pad_id, self._policy.device)
            for chunk in self._ranks.even(chunks, "reflect")
        ]


def demos_of(config: RunConfig) -> Path:
    """The folder to rehearse from: ``train.demos``, else the one that the warm start was made from.

    A run that began with another run's model goes back to that run's. Raises PreflightError where none is
    known.
    """
    demos, init = config.train.demos, config.train.init
    seen: set[Path] = set()
    while demos is None and init is not None:
        run = run_of(init)
        if run is None or run.resolve() in seen:
            break
        seen.add(run.resolve())
        train = read_settings(run / "config.yaml").get("train") or {}
        demos, init = read_manifest(run).get("demos") or train.get("demos"), train.get("init")
    if demos is not None:
        return Path(demos)
    raise PreflightError(
        f"method.rehearsal is {config.method.rehearsal}, but {config.train.init} does not know the "
        "demonstrations it was made from; give train.demos=FOLDER (made by 'repro-rl demos'), or set "
        "method.rehearsal=0."
    )


def build_rehearsal(
    config: RunConfig,
    policy: TransformersPolicy,
    prompts: PromptBuilder,
    instructions: str,
    ranks: Ranks = ALONE,
    env: TextEnv | None = None,
) -> Rehearsal | None:
    """None when the method does not rehearse. Raises PreflightError or DataError when it cannot."""
    if not config.method.rehearses:
        return None
    experts, labelled = load_demos(demos_of(config))
    return Rehearsal([*experts, *labelled], policy, prompts, instructions, config, ranks, env)
