"""Settings of memory and kernels: what was begun may continue with others.

They say how work is cut to fit into memory, and by what it is computed. So sums have another order: results
are equal but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from repro_rl.config.changes import Change, change_lines
from repro_rl.config.sections import PolicySection
from repro_rl.config.values import name_in

MEMORY_SETTINGS = (
    *("train.micro_tokens", "train.gradient_checkpointing"),
    *("policy.max_batch_tokens", "policy.max_cache_tokens", "policy.kernels"),
)


def has_dropout(policy: PolicySection) -> bool:
    """Whether passes over the weights draw masks of dropout: then another cut is another computation."""
    return policy.lora.rank > 0 and policy.lora.dropout > 0


def with_default_memory(policy: PolicySection) -> PolicySection:
    """``policy`` with the defaults of its memory settings."""
    plain = PolicySection()
    names = [name.removeprefix("policy.") for name in MEMORY_SETTINGS if name.startswith("policy.")]
    return policy.model_copy(update={name: getattr(plain, name) for name in names})


def is_memory_setting(override: str) -> bool:
    """Whether ``section.key=value`` sets one of them."""
    return name_in(override) in MEMORY_SETTINGS


def without_memory(overrides: Iterable[str]) -> list[str]:
    """The overrides, or the words of a command, but for those that set memory settings."""
    return [text for text in overrides if not is_memory_setting(text)]


def continued_sentence(folder: Path, changes: Sequence[Change]) -> str:
    """What a warning says of a ``folder`` that continues with other memory settings."""
    return (
        f"{folder} continues with other settings of memory or kernels; results are equal but for rounding:\n"
        f"{change_lines(changes)}"
    )


def why_fixed(names: Iterable[str]) -> str:
    """A line of a message on the memory settings among ``names`` that an adapter's dropout fixes, or ""."""
    fixed = [name for name in names if name in MEMORY_SETTINGS]
    if not fixed:
        return ""
    return f"{', '.join(fixed)}: fixed here, because masks of policy.lora.dropout depend on the cut.\n"
