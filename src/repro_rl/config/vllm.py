"""Settings of the vLLM backends: the sections policy.vllm and policy.vllm.server."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, field_validator

from repro_rl.settings import EnvName, Section


class VllmServerSection(Section):
    """An OpenAI-compatible vLLM server: its address, and the limits of requests to it."""

    url: str = Field("", description="address of the server, such as http://localhost:8000")
    key_env: EnvName = Field(None, description="NAME of the environment variable with the server's --api-key")
    weights: Path | None = Field(
        None,
        description="folder on a disk that trainer and server share, to pass weights  [default: temporary]",
    )
    concurrency: int = Field(128, gt=0, description="concurrent requests")
    timeout: float = Field(600.0, gt=0, description="seconds for one request, answer included")
    retries: int = Field(8, ge=0, description="repetitions of a request after an error that may pass")
    backoff: float = Field(1.0, ge=0, description="seconds before the first repetition; doubles, with jitter")
    max_wait: float = Field(
        60.0,
        ge=0,
        description="longest wait in seconds; a server that asks for a longer one stops the command",
    )

    @field_validator("url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^@?#]+", value):
            raise ValueError(
                "give an address such as http://localhost:8000, without a user, a password or a query"
            )
        return value.rstrip("/").removesuffix("/v1")


class VllmSection(Section):
    """The sampler of policy.backend vllm (needs ``repro-rl[vllm]``) and vllm-server.

    Except for ``server`` and ``max_model_len``, the settings are those of the engine in this process.
    """

    dtype: str = Field("auto", description="of the sampler's weights; auto: that of the trainer's passes")
    max_model_len: int | None = Field(
        None, gt=0, description="longest prompt and completion together  [default: what the prompts need]"
    )
    max_sequences: int = Field(256, gt=0, description="concurrent completions")
    gpu_memory: float = Field(0.4, gt=0, lt=1, description="share of the GPU's memory for weights and cache")
    cache_gb: float | None = Field(
        None, gt=0, description="size of the key-value cache; null: what gpu_memory leaves, on CPU 1"
    )
    eager: bool | None = Field(None, description="no CUDA graphs, no compilation; null: on CPU only")
    sleep: bool = Field(False, description="free the sampler's GPU memory during the update")
    server: VllmServerSection = VllmServerSection()
