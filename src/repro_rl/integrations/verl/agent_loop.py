"""verl's agent loop: one session is one episode of ours, one sample a step and one for the reflection."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopBase,
    AgentLoopMetrics,
    AgentLoopOutput,
    register,
)

from repro_rl.config import RunConfig
from repro_rl.integrations.verl.credit import is_trained
from repro_rl.integrations.verl.data import AGENT, FIELD
from repro_rl.integrations.verl.recipe import SECTION, our_settings
from repro_rl.integrations.verl.session import (
    Answer,
    ServerPolicy,
    Task,
    light,
    play_session,
    session_prompts,
    session_samples,
    text_of,
)
from repro_rl.policy.base import SamplingSettings
from repro_rl.rollout import EnvPool
from repro_rl.types import Ids, Trajectory

THREADS = 512  # sessions of a worker under way at once; each mostly waits for the server
SEEDED = ("vllm", "repro_rl_cpu")  # servers that take a seed with a request


class WorkerState:
    """What the sessions of one worker process share."""

    def __init__(self, section: dict[str, Any], model: str):
        self.config: RunConfig = our_settings(section)[0]
        self.prompts = session_prompts(self.config)
        self.text = text_of(self.config, model)
        self.executor = ThreadPoolExecutor(THREADS, thread_name_prefix="episode")
        self._free: list[EnvPool] = []
        self._lock = threading.Lock()

    @contextmanager
    def pool(self) -> Iterator[EnvPool]:
        """An environment of this session's own, used again by later ones."""
        with self._lock:
            found = self._free.pop() if self._free else None
        pool = found or EnvPool(self.config.env.name, self.config.env.settings)
        try:
            yield pool
        finally:
            with self._lock:
                self._free.append(pool)


_state: WorkerState | None = None


def worker_state(trainer_config: Any) -> WorkerState:
    """Built once a process, from the section ``repro_rl`` of verl's settings."""
    global _state
    if _state is None:
        section = OmegaConf.to_container(trainer_config[SECTION], resolve=True)
        assert isinstance(section, dict)
        model = trainer_config.actor_rollout_ref.model
        _state = WorkerState(
            {str(k): v for k, v in section.items()}, str(model.get("tokenizer_path") or model.path)
        )
    return _state


@register(AGENT)
class ReproAgentLoop(AgentLoopBase):
    """Plays in a thread of its own, so that the rollout is the same code as everywhere else."""

    def __init__(self, trainer_config: Any, server_manager: Any, **kwargs: Any):
        # Not super().__init__: it prepares verl's own prompts, and fails for a tokenizer of whole words.
        self.config = trainer_config.config
        self.rollout_config = self.config.actor_rollout_ref.rollout
        self.server_manager = server_manager
        self.state = worker_state(self.config)

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> list[AgentLoopOutput]:
        """``kwargs``: the columns of our data files, ``session_id`` and ``global_steps``."""
        state = self.state
        loop = asyncio.get_running_loop()
        request = uuid4().hex
        begin = time.perf_counter()

        async def generate(ids: Ids, settings: SamplingSettings, seed: int) -> Answer:
            asked = {
                **sampling_params,
                "temperature": settings.temperature,
                "max_tokens": settings.max_new_tokens,
                **self._more(seed),
            }
            output = await self.server_manager.generate(
                request_id=request, prompt_ids=list(ids), sampling_params=asked
            )
            return Answer(tuple(output.token_ids), output.log_probs, dict(output.extra_fields))

        def ask(ids: Ids, settings: SamplingSettings, seed: int) -> Answer:
            return asyncio.run_coroutine_threadsafe(generate(ids, settings, seed), loop).result()

        policy = ServerPolicy(state.text, ask)
        task = Task(
            stage=str(kwargs["stage"]),
            task_id=str(kwargs["task"]),
            iteration=int(kwargs["iteration"]),
            place=int(kwargs["place"]),
            session=int(kwargs["session_id"]),
        )

        def play() -> Trajectory:
            with state.pool() as pool:
                return play_session(state.config, pool, state.prompts, policy, task)

        trajectory = await loop.run_in_executor(state.executor, play)
        outputs = self._outputs(task, trajectory, policy, int(kwargs["global_steps"]))
        outputs[-1].metrics.generate_sequences = time.perf_counter() - begin
        return outputs

    def _more(self, seed: int) -> dict[str, Any]:
        """A seed of its own and every token that ends a text, where the server takes them."""
        if self.rollout_config.name not in SEEDED:
            return {}
        return {"seed": seed, "stop_token_ids": sorted(self.state.text.eos_ids)}

    def _outputs(
        self, task: Task, trajectory: Trajectory, policy: ServerPolicy, global_steps: int
    ) -> list[AgentLoopOutput]:
        config = self.state.config
        reflected = task.stage == "train" and is_trained(config, task.iteration, task.place, task.session)
        outputs = []
        for kind, completion in session_samples(trajectory, reflected):
            outputs.append(
                AgentLoopOutput(
                    prompt_ids=list(completion.prompt_ids),
                    response_ids=list(completion.token_ids),
                    response_mask=[1] * len(completion.token_ids),
                    response_logprobs=[float(value) for value in completion.logprobs],
                    num_turns=trajectory.length,
                    metrics=AgentLoopMetrics(),
                    extra_fields={**policy.extras[id(completion)], FIELD: {"kind": kind}},
                )
            )
        if not outputs:  # nothing was sampled; verl would take the session for one that never was
            end = min(self.state.text.eos_ids)
            versions = {"min_global_steps": global_steps, "max_global_steps": global_steps}
            outputs.append(
                AgentLoopOutput(
                    prompt_ids=[end],
                    response_ids=[end],
                    response_mask=[0],
                    response_logprobs=[0.0],
                    num_turns=0,
                    metrics=AgentLoopMetrics(),
                    extra_fields={**versions, FIELD: {"kind": "empty"}},
                )
            )
        last = outputs[-1]
        last.reward_score = trajectory.env_return
        last.extra_fields["reward_extra_info"] = {
            "acc": float(trajectory.won),
            "score": trajectory.score,
            "length": float(trajectory.length),
        }
        # As bytes: verl's records turn a dataclass into a plain mapping.
        last.extra_fields[FIELD] = {**last.extra_fields[FIELD], "trajectory": pickle.dumps(light(trajectory))}
        return outputs
