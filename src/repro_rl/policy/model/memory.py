"""When memory runs out: what was being done, and which settings need less."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from repro_rl.errors import DeviceMemoryError, ReproError, clause

LOADING = (
    "Take a smaller model, or an adapter (policy.lora.rank=64), which needs no second copy as a reference"
)
SAMPLING = "Lower policy.max_cache_tokens and policy.max_batch_tokens; a run continues with other values"
SCORING = "Lower train.micro_tokens; a run continues with other values"
TRAINING = (
    "Lower train.micro_tokens, or set train.gradient_checkpointing=true; a run continues with other values. "
    "In a new run an adapter takes far less (policy.lora.rank=64)"
)
ANYWHERE = (
    "Lower train.micro_tokens, policy.max_cache_tokens and policy.max_batch_tokens; a run continues with "
    "other values. In a new run an adapter takes far less (policy.lora.rank=64)"
)
# Parts of the messages of other RuntimeErrors: of other devices, cuBLAS, and torch's CPU.
WORDS = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "DefaultCPUAllocator")


@contextmanager
def memory_explained(doing: str, advice: str) -> Iterator[None]:
    """Inside, running out of memory raises DeviceMemoryError: with the library's reason and ``advice``."""
    try:
        yield
    except Exception as error:  # ``lacks_memory`` tells
        if not lacks_memory(error):
            raise
        raise explained(error, doing, advice) from error


def explained(error: BaseException, doing: str, advice: str) -> DeviceMemoryError:
    """What to raise for an ``error`` that ``lacks_memory``; ``doing``: as in "sampling", or empty."""
    reason = " ".join(str(error).split()) or type(error).__name__
    while_doing = f" while {doing}" if doing else ""
    return DeviceMemoryError(
        f"Out of memory{while_doing}: {clause(reason)}. {advice}. 'repro-rl plan' says what each part takes."
    )


def lacks_memory(error: BaseException) -> bool:
    """Whether this was raised for want of memory, and nobody has explained it yet."""
    if isinstance(error, ReproError):
        return False
    torch = sys.modules.get("torch")  # loaded by whoever raised its error; models behind a server need none
    kinds = (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or any(words in str(error) for words in WORDS)
