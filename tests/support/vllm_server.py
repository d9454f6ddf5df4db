"""A server on 127.0.0.1 with what our sampler uses of a vLLM server's interface, and a real model."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from repro_rl.policy import SamplingSettings
from repro_rl.policy.vllm.worker import EXTENSION, other_head
from repro_rl.random_streams import uniforms
from repro_rl.types import Completion, Ids
from support.api_server import Reply, Server, error
from support.models import forward_logprobs, load_cpu
from support.small import WORDS

PROMPTS = [" ".join(WORDS[i : i + 1 + i % 5]) for i in range(8)]
GREEDY = SamplingSettings(6, temperature=0)


def same_completions(one: Sequence[Completion], two: Sequence[Completion]) -> bool:
    """Whether prompts, ids, texts and ends are the same."""
    return [(c.prompt_ids, c.token_ids, c.text, c.finished) for c in one] == [
        (c.prompt_ids, c.token_ids, c.text, c.finished) for c in two
    ]


def answer(**content: Any) -> Reply:
    return Reply(data=json.dumps(content).encode())


class VllmServer(Server):
    """Samples with ``model``'s weights until others are loaded; ``fail`` may answer instead of it."""

    def __init__(self, model: Path, limit: int | None = 200) -> None:
        super().__init__()
        self.url = self.url.removesuffix("/v1")
        self.model_folder, self.limit = model, limit
        self.mode, self.extension, self.dev = "processed_logprobs", EXTENSION, True
        self.sees_folders, self.chunks = True, False
        self.loads = 0
        self.fail: Callable[[str, dict[str, Any] | None, int], Reply | None] = lambda path, body, number: None
        self.route = self._route
        self._one = threading.Lock()
        self.restart()

    def restart(self) -> None:
        """As after a crash: the weights it was started with, and no version."""
        self.policy = load_cpu(self.model_folder)
        self.version = "default"

    def _route(self, path: str, body: dict[str, Any] | None, number: int) -> Reply:
        with self._one:
            failed = self.fail(path, body, number)
            if failed is not None:
                return failed
            if path == "/v1/models":
                return answer(data=[{"id": "served", "max_model_len": self.limit}])
            if path == "/version":
                return answer(version="0.0-test")
            if path == "/v1/completions" and body is not None:
                return self._complete(body)
            if not self.dev:
                return error(404, "Not Found")
            if path.startswith("/server_info"):
                model = {"logprobs_mode": self.mode, "dtype": "torch.float32"}
                parallel = {"worker_extension_cls": self.extension}
                return answer(
                    vllm_config={
                        "model_config": model,
                        "parallel_config": parallel,
                        "scheduler_config": {"enable_chunked_prefill": self.chunks},
                        "device_config": {"device_type": "cpu"},
                    }
                )
            if path == "/weight_info":
                return answer(weight_version=self.version)
            if path == "/update_weight_version" and body is not None:
                self.version = body["new_version"]
                return answer(success=True)
            if path == "/reset_prefix_cache":
                return answer(success=True)
            if path == "/collective_rpc" and body is not None:
                return self._load(body)
            return error(404, "Not Found")

    def _load(self, body: dict[str, Any]) -> Reply:
        assert body["method"] == "repro_rl_load"
        folder = Path(body["kwargs"]["folder"])
        if not self.sees_folders:
            return answer(results=[f"the server sees no weights in {folder}"])
        served = SimpleNamespace(hf_config=self.policy.model.config, trust_remote_code=False)
        if (problem := other_head(str(folder), served)) is not None:
            return answer(results=[problem])
        self.policy.model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
        self.policy.weights_changed()
        self.loads += 1
        return answer(results=["loaded"])

    def _complete(self, body: dict[str, Any]) -> Reply:
        prompt = tuple(body["prompt"])
        if len(prompt) >= self.limit:
            return error(400, "This model's maximum context length is exceeded")
        settings = SamplingSettings(body["max_tokens"], body["temperature"], body["top_p"])
        if "allowed_token_ids" in body:
            return self._one_of(prompt, body["allowed_token_ids"], body["seed"], settings)
        with torch.no_grad():
            [done] = self.policy.generate_ids([prompt], np.array([body["seed"]], dtype=np.uint64), settings)
        choice = {
            "index": 0,
            "text": "",
            "finish_reason": "stop" if done.finished else "length",
            "token_ids": list(done.token_ids),
            "prompt_token_ids": list(prompt),
            "logprobs": {"token_logprobs": [float(x) for x in done.logprobs]},
        }
        return answer(choices=[choice])

    def _one_of(self, prompt: Ids, allowed: list[int], seed: int, settings: SamplingSettings) -> Reply:
        """One token of ``allowed``, with its log-prob among those, as vLLM masks all other logits."""
        assert settings.max_new_tokens == 1
        row = torch.from_numpy(forward_logprobs(self.policy, prompt)[-1][allowed])
        scaled = torch.log_softmax(row / (settings.temperature or 1), -1)
        uniform = uniforms(np.array([seed], dtype=np.uint64), 0)[0]
        drawn = int(np.searchsorted(np.cumsum(scaled.exp().numpy()), uniform)) if settings.temperature else 0
        index = min(drawn, len(allowed) - 1) if settings.temperature else int(scaled.argmax())
        choice = {
            "index": 0,
            "finish_reason": "length",
            "token_ids": [allowed[index]],
            "prompt_token_ids": list(prompt),
            "logprobs": {"token_logprobs": [float(scaled[index])]},
        }
        return answer(choices=[choice])
