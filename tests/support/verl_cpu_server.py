"""The generation server of ``verl_cpu_platform``: a Ray actor around ``TransformersPolicy``.

A module of its own, because Ray imports an actor's module before verl, and verl imports the platform.
"""

from __future__ import annotations

import asyncio
from typing import Any

import torch

NAME = "repro_rl_cpu"
DEVICE = "cpu"


def server_name(replica_rank: int) -> str:
    """Ray's name of the server beside this rank."""
    return f"{NAME}_server_{replica_rank}"


class Server:
    """A Ray actor that samples; requests that wait at the same moment are one batch."""

    def __init__(self, model: str, threads: int = 1):
        from repro_rl.config import PolicySection
        from repro_rl.policy import TransformersPolicy

        torch.set_num_threads(threads)
        self.policy = TransformersPolicy.load(model, PolicySection(device=DEVICE, chat="off"))
        self.version = 0
        self.waiting: list[tuple[tuple[int, ...], dict[str, Any], asyncio.Future[Any]]] = []
        self.busy = asyncio.Lock()

    async def load(self, weights: dict[str, Any], version: int | None) -> None:
        """Take the trainer's weights; ``version`` is the step that made them."""
        async with self.busy:
            state = {name: torch.from_numpy(value) for name, value in weights.items()}
            missing, unexpected = self.policy.model.load_state_dict(state, strict=False)
            tied = {"lm_head.weight"} if self.policy.model.config.tie_word_embeddings else set()
            if set(missing) - tied or unexpected:
                raise RuntimeError(f"weights do not fit: missing {missing}, unexpected {unexpected}")
            self.policy.weights_changed()
            self.version = int(version or 0)

    async def generate(
        self, request_id: str, prompt_ids: list[int], sampling_params: dict[str, Any], **_: Any
    ) -> Any:
        """verl's TokenOutput for one prompt."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waiting.append((tuple(prompt_ids), sampling_params, future))
        await asyncio.sleep(0.01)  # requests that come meanwhile share the batch
        async with self.busy:
            if not future.done():
                await asyncio.to_thread(self._sample)
        return await future

    def _sample(self) -> None:
        import numpy as np
        from verl.workers.rollout.replica import TokenOutput

        from repro_rl.policy.base import SamplingSettings

        batch, self.waiting = self.waiting, []
        by_settings: dict[SamplingSettings, list[Any]] = {}
        for request in batch:
            params = request[1]
            settings = SamplingSettings(
                int(params["max_tokens"]), float(params["temperature"]), params["top_p"]
            )
            by_settings.setdefault(settings, []).append(request)
        for settings, requests in by_settings.items():
            keys = np.array([request[1]["seed"] for request in requests], dtype=np.uint64)
            done = self.policy.generate_ids([request[0] for request in requests], keys, settings)
            for (_, _, future), completion in zip(requests, done, strict=True):
                output = TokenOutput(
                    token_ids=list(completion.token_ids),
                    log_probs=[float(value) for value in completion.logprobs],
                    stop_reason="completed",
                    extra_fields={"global_steps": self.version},
                )
                future.get_loop().call_soon_threadsafe(future.set_result, output)

    async def wake_up(self) -> None: ...

    async def sleep(self) -> None: ...

    async def abort_all_requests(self, reject_request: bool = False) -> None: ...

    async def resume_generation(self) -> None: ...

    async def clear_kv_cache(self) -> None: ...
