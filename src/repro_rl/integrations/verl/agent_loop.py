"""verl's agent loop: one session is one episode of ours, one sample a step and one for the reflection."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopBase,
    AgentLoopMetrics,
    AgentLoopOutput,
    register,
)

from repro_rl.dist.ranks import ALONE
from repro_rl.integrations.verl.credit import NAMES
from repro_rl.integrations.verl.data import AGENT, FIELD
from repro_rl.integrations.verl.recipe import SECTION, our_settings
from repro_rl.integrations.verl.session import (
    Answer,
    ServerPolicy,
    Task,
    is_trained,
    play_session,
    request_params,
    session_samples,
    without_prompt_ids,
)
from repro_rl.policy.base import SamplingSettings
from repro_rl.run.setup import Setup, build_pool, set_up
from repro_rl.types import Ids, Trajectory

THREADS = 512  # sessions of a worker under way at once; each mostly waits for the server


class WorkerState:
    """What the sessions of one worker process share."""

    def __init__(self, section: dict[str, Any], model: str):
        self.setup = set_up(our_settings(section)[0], ALONE)
        self.codec = self.setup.codec(model)
        self.executor = ThreadPoolExecutor(THREADS, thread_name_prefix="episode")
        self._free: list[Setup] = []
        self._lock = threading.Lock()

    @contextmanager
    def own_setup(self) -> Iterator[Setup]:
        """The setup with environments of this session's own, used again by later ones."""
        with self._lock:
            free = self._free.pop() if self._free else None
        setup = free or replace(self.setup, pool=build_pool(self.setup.config.env))
        try:
            yield setup
        finally:
            with self._lock:
                self._free.append(setup)


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
            params = {
                **sampling_params,
                "temperature": settings.temperature,
                "max_tokens": settings.max_new_tokens,
                **request_params(self.rollout_config.name, seed, state.codec.eos_ids),
            }
            output = await self.server_manager.generate(
                request_id=request, prompt_ids=list(ids), sampling_params=params
            )
            return Answer(tuple(output.token_ids), output.log_probs, dict(output.extra_fields))

        def ask(ids: Ids, settings: SamplingSettings, seed: int) -> Answer:
            return asyncio.run_coroutine_threadsafe(generate(ids, settings, seed), loop).result()

        policy = ServerPolicy(state.codec, ask)
        task = Task(
            stage=str(kwargs["stage"]),
            task_id=str(kwargs["task"]),
            iteration=int(kwargs["iteration"]),
            group=int(kwargs["group"]),
            session=int(kwargs["session_id"]),
        )

        def play() -> Trajectory:
            with state.own_setup() as setup:
                return play_session(setup, policy, task)

        trajectory = await loop.run_in_executor(state.executor, play)
        outputs = self._outputs(task, trajectory, policy, int(kwargs["global_steps"]))
        outputs[-1].metrics.generate_sequences = time.perf_counter() - begin
        return outputs

    def _outputs(
        self, task: Task, trajectory: Trajectory, policy: ServerPolicy, global_steps: int
    ) -> list[AgentLoopOutput]:
        def output(
            prompt: Ids, answer: Ids, logprobs: list[float], fields: dict[str, Any]
        ) -> AgentLoopOutput:
            empty = fields[FIELD]["kind"] == "empty"
            return AgentLoopOutput(
                prompt_ids=list(prompt),
                response_ids=list(answer),
                response_mask=[int(not empty)] * len(answer),
                response_logprobs=logprobs,
                num_turns=0 if empty else trajectory.length,
                metrics=AgentLoopMetrics(),
                extra_fields=fields,
            )

        reflected = task.stage == "train" and is_trained(self.state.setup, task)
        outputs = []
        for kind, completion in session_samples(trajectory, reflected):
            fields = {**policy.extras[id(completion)], FIELD: {"kind": NAMES[kind]}}
            logprobs = [float(value) for value in completion.logprobs]
            outputs.append(output(completion.prompt_ids, completion.token_ids, logprobs, fields))
        if not outputs:  # nothing was sampled; verl would take the session for one that never was
            end = (min(self.state.codec.eos_ids),)
            versions = {"min_global_steps": global_steps, "max_global_steps": global_steps}
            outputs.append(output(end, end, [0.0], {**versions, FIELD: {"kind": "empty"}}))
        last = outputs[-1]
        last.reward_score = trajectory.env_return
        last.extra_fields["reward_extra_info"] = {
            "acc": float(trajectory.won),
            "score": trajectory.score,
            "length": float(trajectory.length),
        }
        # As bytes: verl's records turn a dataclass into a plain mapping.
        last.extra_fields[FIELD] = {
            **last.extra_fields[FIELD],
            "trajectory": pickle.dumps(without_prompt_ids(trajectory)),
        }
        return outputs
