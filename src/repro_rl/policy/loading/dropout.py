"""A model's own dropout is off, in training as in sampling (docs/loading.md).

Sampler and trainer must be one distribution. With dropout in the update alone, the log-probs of the first
optimizer step differ from the sampled ones. The KL divergence to the reference is then not 0 where nothing
was trained yet. The dropout of an adapter (``policy.lora.dropout``) is a setting of its own, and seeded.
"""

from __future__ import annotations

from typing import Any

NAMES = ("drop", "jitter")  # parts of the names that configurations give to such probabilities


def turn_off(config: Any, prefix: str = "") -> dict[str, float]:
    """Set every probability of dropout in a configuration of transformers to 0; returns what they were.

    By dotted name in config.json. Done before the model is built: many architectures apply dropout as a
    function, whose probability they read from the configuration.
    """
    found: dict[str, float] = {}
    items = config if isinstance(config, dict) else vars(config)
    for name, value in list(items.items()):
        if isinstance(value, dict) or hasattr(value, "to_dict"):  # nested, as MPT's of its attention
            found |= turn_off(value, f"{prefix}{name}.")
        elif any(part in str(name) for part in NAMES) and _is_probability(value):
            found[prefix + name] = value
            if isinstance(config, dict):
                config[name] = type(value)(0)
            else:
                setattr(config, name, type(value)(0))
    return found


def _is_probability(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1


def turn_off_modules(model: Any) -> None:
    """Set the probability of dropout layers to 0: of those whose code names it, not the configuration."""
    from torch.nn.modules.dropout import _DropoutNd

    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0


def with_dropout(content: dict[str, Any], values: dict[str, float]) -> dict[str, Any]:
    """The content of a config.json with the probabilities that ``turn_off`` returned."""
    for dotted, value in values.items():
        *parents, name = dotted.split(".")
        part = content
        for parent in parents:
            part = part.setdefault(parent, {})
        part[name] = value
    return content
