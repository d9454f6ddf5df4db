"""The vLLM engine of this process: one at a time, shared by the samplers that follow one another."""

from __future__ import annotations

import gc
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from repro_rl.config import VllmSection
from repro_rl.errors import ConfigError, PreflightError
from repro_rl.policy.transformers_policy import TransformersPolicy
from repro_rl.policy.vllm.installed import check_head, import_vllm, on_cpu
from repro_rl.policy.vllm.worker import EXTENSION

CPU_CACHE_GB = 1.0
CPU_BATCH_TOKENS = 4096


@dataclass(slots=True)
class Engine:
    """A running ``vllm.LLM`` and whose weights it holds."""

    llm: Any  # ``vllm.LLM``
    key: str  # what it was built from; equal keys can share it
    max_model_len: int  # longest sequence, in tokens
    dtype: str  # of its weights, such as "bfloat16"
    owner: object = None  # the sampler whose weights it holds; None: nobody's


_current: Engine | None = None


def engine_for(trainer: TransformersPolicy, config: Any, section: VllmSection, longest: int) -> Engine:
    """The running engine when it fits ``config`` and ``section``, else a new one in its place.

    ``config``: of the model whose weights it will get, see ``colocated.whole_model``. ``longest``: tokens of
    the longest prompt and completion together. The engine starts with weights of no meaning: its owner loads
    the trainer's, so nothing is read from disk and adapters need no special case.
    Raises MissingDependencyError, ConfigError for what vLLM cannot run, and PreflightError when it does not
    start.
    """
    global _current
    vllm = import_vllm()
    check_head(config)
    cpu = on_cpu()
    if section.sleep and cpu:
        raise ConfigError("policy.vllm.sleep frees GPU memory; this vLLM runs on CPU. Set it to false.")
    if trainer.device.type == "cuda" and trainer.device.index not in (None, 0):
        raise ConfigError(
            f"policy.device is {trainer.device}: vLLM takes the first visible GPU. Use policy.device=cuda, "
            f"and CUDA_VISIBLE_DEVICES={trainer.device.index}."
        )
    dtype = section.dtype if section.dtype != "auto" else sampling_dtype(trainer)
    length = section.max_model_len or longest
    options: dict[str, Any] = {
        "dtype": dtype,
        "max_model_len": length,
        "max_num_seqs": section.max_sequences,
        "enforce_eager": cpu if section.eager is None else section.eager,
        "gpu_memory_utilization": section.gpu_memory,
        "enable_sleep_mode": section.sleep,
    }
    if cpu:
        # A prompt cut into chunks needs its seeded generator turned back, which vLLM cannot do on CPU (it
        # ends with "CPU Generator does not use offset"). So prompts are computed whole.
        options |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(CPU_BATCH_TOKENS, length)}
    if section.cache_gb or cpu:
        options["kv_cache_memory_bytes"] = int((section.cache_gb or CPU_CACHE_GB) * (1 << 30))
    key = f"{config.to_json_string(use_diff=False)} {options}"
    if _current is not None and _current.key == key:
        return _current
    shut_down()
    with tempfile.TemporaryDirectory(prefix="repro-rl-vllm-") as name:
        config.save_pretrained(Path(name))
        try:
            llm = vllm.LLM(
                model=name,
                load_format="dummy",
                skip_tokenizer_init=True,  # prompts and completions are token ids
                generation_config="vllm",  # no sampling defaults of the model's
                logprobs_mode="processed_logprobs",  # at the temperature, as our own sampler's
                worker_extension_cls=EXTENSION,
                disable_log_stats=True,
                seed=0,
                **options,
            )
        except Exception as error:
            raise PreflightError(
                f"vLLM does not start with policy.vllm ({type(error).__name__}: {error}). When memory is "
                "short, lower policy.vllm.gpu_memory, cache_gb or max_model_len."
            ) from error
    _current = Engine(llm, key, length, dtype)
    return _current


def sampling_dtype(trainer: TransformersPolicy) -> str:
    """The dtype that the trainer's forward passes compute in."""
    if trainer.mixed:
        return "bfloat16"
    return str(next(trainer.model.parameters()).dtype).removeprefix("torch.")


def shut_down() -> None:
    """Stop the running engine, if there is one, and free its memory."""
    global _current
    if _current is None:
        return
    core = getattr(_current.llm.llm_engine, "engine_core", None)
    _current = None
    if core is not None:
        core.shutdown()
    from vllm.distributed import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
