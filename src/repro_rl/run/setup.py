"""From settings to objects: the only module that turns a ``RunConfig`` into what a run is made of.

Trainer, evaluation, warmup, plan, study and verl start from a ``Setup``. What they call takes the objects and
sections that it uses. What loads a model imports torch; environments, prompts and API models need none.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro_rl.config import (
    EnvSection,
    PolicySection,
    PromptSection,
    RunConfig,
    dump_config,
    is_api,
)
from repro_rl.credit import ReflectionChoice
from repro_rl.dist.ranks import JoinSettings, Ranks, join
from repro_rl.envs.base import ENVS
from repro_rl.envs.panel import TaskPanel
from repro_rl.errors import CheckpointError, PreflightError, TaskError
from repro_rl.policy.base import Policy, PromptText, Sampler, SamplingSettings
from repro_rl.policy.http import HttpPolicy
from repro_rl.policy.loading.source import find_source
from repro_rl.random_streams import name_key
from repro_rl.rollout.context import Context, ContextLimits, make_context
from repro_rl.rollout.env_pool import EnvPool
from repro_rl.run.api_model import api_policy
from repro_rl.run.lineage import judge_of
from repro_rl.run.panels import eval_panel, validation_panel
from repro_rl.run.preflight import check_model_text, check_prompt
from repro_rl.text.parse import TextFormat
from repro_rl.text.prompts import PromptBuilder
from repro_rl.types import Trajectory

if TYPE_CHECKING:
    from repro_rl.policy import TextCodec, TransformersPolicy
    from repro_rl.run.models import Reference


@dataclass(slots=True, frozen=True)
class Setup:
    """The objects of a run that need no model, and how the others are made. Whoever made it closes it."""

    config: RunConfig  # the run's settings
    ranks: Ranks  # the processes that share the run; the null object for one
    pool: EnvPool  # the environments; each plays one episode at a time
    prompts: PromptBuilder  # of the method

    def close(self) -> None:
        """Close the environments, which may hold processes and connections."""
        self.pool.close()

    # Prompts, panels, sampling --------------------------------------------------------------------

    def prompts_with(self, progress: bool) -> PromptBuilder:
        """The run's prompts, asking for progress while acting or not, whatever the method does."""
        return build_prompts(self.config.prompt, progress, self.config.method.reflect)

    def panel(self, split: str, tasks: int | None = None) -> TaskPanel:
        """The fixed tasks of a split, the first ``tasks`` of them. Raises TaskError when there are fewer."""
        panel = self.pool.panel(split)
        return panel if tasks is None else panel.head(tasks)

    def validation_panel(self) -> TaskPanel:
        """The fixed tasks that settings and checkpoints are chosen on."""
        return validation_panel(self.config.eval, self.pool.panel)

    def eval_panel(self) -> TaskPanel:
        """The fixed tasks that models are evaluated on, see ``panels.eval_panel``."""
        return eval_panel(self.config.eval, self.pool.panel)

    def validation_manifest(self) -> dict[str, dict[str, Any]]:
        """The validation panel for a run's manifest; nothing where there is none, and nobody validates."""
        try:
            return {"validation": self.validation_panel().manifest()}
        except TaskError:
            return {}

    def action_sampling(self, temperature: float) -> SamplingSettings:
        """Of completions that act."""
        return SamplingSettings(self.config.prompt.action_tokens, temperature)

    def reflection_sampling(self, temperature: float) -> SamplingSettings:
        """Of reflections."""
        return SamplingSettings(self.config.prompt.reflect_new_tokens, temperature)

    def reflection_choice(self) -> ReflectionChoice:
        """Which reflections RL trains on."""
        return ReflectionChoice(self.config.method.trained_share, self.config.seed)

    def context(self, codec: PromptText) -> Context:
        """The context mode of the run, its token budgets bounded by the model's positions.

        Raises PreflightError where the longest completion alone fills those positions.
        """
        prompt, reflects = self.config.prompt, self.config.method.reflect
        for setting, tokens in (
            ("prompt.action_tokens", prompt.action_tokens),
            *([("prompt.reflect_new_tokens", prompt.reflect_new_tokens)] if reflects else []),
        ):
            if codec.positions is not None and tokens >= codec.positions:
                raise PreflightError(
                    f"{setting} is {tokens}, and the model holds {codec.positions} tokens, prompt included; "
                    "lower it, or take a model with more positions."
                )
        limits = context_limits(self.config.prompt, self.config.policy).within(codec.positions)
        return make_context(self.config.prompt.context, self.pool, limits)

    # Models ---------------------------------------------------------------------------------------

    def initial_model(self, demos: Sequence[Trajectory], folder: Path) -> str | Path:
        """The model before any training: a checkpoint's name, or a tiny model built into ``folder``.

        Raises CheckpointError, naming the setting, for a policy.model that is neither a model nor a hub name.
        """
        policy = self.config.policy
        if policy.model != "tiny":
            try:
                if not is_api(policy.model):
                    find_source(policy.model)
            except CheckpointError as error:
                raise CheckpointError(f"policy.model={policy.model}: {error}") from error
            return policy.model
        from repro_rl.run.models import tiny_model

        return tiny_model(folder, self.tiny_words(demos), policy.tiny, self.config.seed)

    def tiny_words(self, demos: Sequence[Trajectory] = ()) -> set[str]:
        """Words of the tiny model's tokenizer: of environment, templates and demonstrations."""
        demonstrations = any(mode.startswith("demos") for mode in self.config.warmup.forward_modes)
        env = self.pool.first
        words = self.pool.vocabulary()
        words |= self.prompts_with(progress=True).words(env.max_steps, demonstrations=demonstrations)
        for trajectory in demos:
            for step in trajectory.steps:
                for text in (step.observation, step.brief, step.action, step.feedback):
                    words.update(text.split())
        return words

    def codec(self, model: str | Path) -> TextCodec:
        """Tokenizer and chat template of a model folder or hub name, without its weights.

        Raises what ``load_codec`` raises.
        """
        from repro_rl.policy.loading.codec import load_codec

        policy = self.config.policy
        return load_codec(
            model,
            chat=policy.chat,
            thinking=policy.thinking,
            trust_remote_code=policy.trust_remote_code,
        )

    def check_texts(self, codec: TextCodec, task: str) -> list[str]:
        """Whether a model with this tokenizer can read the first prompt of ``task``, and answer it.

        Raises what ``context``, ``check_model_text`` and ``check_prompt`` raise. Returns what the last does.
        """
        check_model_text(self.config.prompt, codec)
        reflects = self.config.method.reflect
        return check_prompt(self.context(codec), self.prompts, codec, task, reflects=reflects)

    def load_trained(self, path: str | Path, *, resumed: bool) -> TransformersPolicy:
        """The policy that is to be trained, see ``models.load_trained``.

        Raises PreflightError when its chat template cannot serve the prompts.
        """
        from repro_rl.run.models import load_trained

        config = self.config
        policy = load_trained(
            config.policy,
            path,
            resumed=resumed,
            seed=config.seed,
            gradient_checkpointing=config.train.gradient_checkpointing,
        )
        check_model_text(config.prompt, policy.codec)
        return policy

    def reference(self, policy: TransformersPolicy, warm_start: str | Path) -> Reference:
        """The frozen reference model of an RL run, as far as its settings need one."""
        from repro_rl.run.models import load_reference

        config = self.config
        return load_reference(
            config.policy,
            policy,
            warm_start,
            kl=config.train.kl.active or config.method.scores_reference,
            judge=config.method.judged_by_reference,
        )

    def sampler(self, policy: TransformersPolicy) -> Sampler:
        """What samples with the weights of ``policy``, see ``models.build_sampler``. The caller closes it."""
        from repro_rl.run.models import build_sampler

        longest = self.context(policy.codec).longest_sequence()
        return build_sampler(self.config.policy, policy, longest)

    def agent(self, path: Path, *, reflects: bool = True) -> Sampler | HttpPolicy:
        """A policy to play with: a model folder or hub name, or ``api:MODEL``. The caller closes it.

        ``reflects``: its episodes are judged, by itself unless there is a frozen judge.
        Raises CheckpointError when it cannot be loaded, PreflightError when its chat template cannot serve
        the prompts, and what ``api_policy`` and ``sampler`` raise.
        """
        config = self.config
        if is_api(path):
            own_judge = reflects and config.reference_judge is None
            return api_policy(config.api, config.prompt, path, reflects=own_judge)
        from repro_rl.run.models import load_policy

        policy = load_policy(config.policy, path)
        check_model_text(config.prompt, policy.codec)
        return self.sampler(policy)

    def frozen_judge(self, model: str | Path) -> Policy | None:
        """The frozen judge of episodes of ``model``; None: the policy is its own judge.

        Raises what ``judge_of`` raises.
        """
        config = self.config
        if config.reference_judge is None:
            return None
        from repro_rl.run.models import load_policy

        judge = load_policy(config.policy, judge_of(config.reference_judge, model))
        check_model_text(config.prompt, judge.codec)
        return judge

    def seed_dropout(self, *names: object) -> None:
        """Dropout alone draws from torch's own generator: every update seeds it by its name."""
        lora = self.config.policy.lora
        if lora.rank and lora.dropout:
            import torch

            torch.manual_seed(name_key(self.config.seed, "dropout", *names) >> 1)


def set_up(config: RunConfig, ranks: Ranks | None = None) -> Setup:
    """The objects that the settings stand for; ``ranks``: those that share the run, else who was launched.

    Raises UnknownNameError for an environment that does not exist, and ConfigError when another rank was
    started with other settings. Raises also what the environment does for its own settings.
    """
    ENVS.get(config.env.name)  # before the ranks wait for one another
    set_threads(config.policy.threads)
    return Setup(
        config=config,
        ranks=join_ranks(config) if ranks is None else ranks,
        pool=build_pool(config.env),
        prompts=build_prompts(config.prompt, config.method.progress, config.method.reflect),
    )


def join_ranks(config: RunConfig) -> Ranks:
    """The ranks that share the run, once they have agreed on its settings."""
    return join(
        JoinSettings(
            settings=dump_config(config),
            device=config.policy.device,
            timeout=config.train.peer_timeout,
            lora_rank=config.policy.lora.rank,
            optimizer=config.train.optimizer,
        )
    )


def set_threads(threads: int) -> None:
    """Threads are a setting: on a busy machine two cost more than they bring (and change the last bits)."""
    if threads and find_spec("torch") is not None:
        import torch

        torch.set_num_threads(threads)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def build_pool(section: EnvSection) -> EnvPool:
    """The environments of the settings; none is built yet."""
    return EnvPool(section.name, section.settings)


def build_prompts(section: PromptSection, progress: bool, reflects: bool) -> PromptBuilder:
    """The prompt builder; ``progress``: completions that act report progress.

    ``reflects``: the method asks for reflections, whether this command does or not.
    """
    fmt = TextFormat(section.style, progress, section.think, section.report)
    return PromptBuilder(
        fmt,
        history=section.history,
        template_dir=section.template_dir,
        resolution=section.resolution,
        admissible=section.admissible != "off",
        tagged=section.admissible == "tagged",
        notices=section.notices == "on",
        guided=section.reflect_form == "guided",
        reflects=reflects,
    )


def context_limits(prompt: PromptSection, policy: PolicySection) -> ContextLimits:
    """The token budgets of the settings, whatever the model's positions."""
    return ContextLimits(
        prompt=prompt.max_prompt_tokens,
        reflect_prompt=prompt.max_reflect_tokens,
        conversation=prompt.max_chat_tokens,
        action=prompt.action_tokens,
        reflection=prompt.reflect_new_tokens,
        cache=policy.max_cache_tokens,
    )
