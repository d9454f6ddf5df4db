"""The methods by name: RePro-PO, its baselines, controls and ablations, each as ``MethodSection`` settings.

Nothing else depends on a method's name: a method is its settings, and for some a policy loss. methods.yaml
holds those that ship.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repro_rl.files import read_yaml
from repro_rl.registry import Registry

METHODS: Registry[dict[str, Any]] = Registry("method", group="repro_rl.methods", setting="method")
METHOD_LOSSES: Registry[dict[str, Any]] = Registry("loss of a method")  # the ``train.loss`` of some


def register_method(
    name: str, settings: dict[str, Any], loss: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Make ``settings`` (fields of ``MethodSection``) a method. Raises ConfigError when the name is taken.

    ``loss``: fields of ``train.loss`` that runs with this method have where they do not give them.
    """
    METHODS.register(name, settings)
    if loss is not None:
        METHOD_LOSSES.register(name, loss)
    return settings


def about_methods() -> dict[str, str]:
    """One line on each method that ships."""
    return {name: str(text) for name, text in _SHIPPED["about"].items()}


_SHIPPED = read_yaml(Path(__file__).with_name("methods.yaml"), dict[str, dict[str, Any]])
for _name, _settings in _SHIPPED["methods"].items():
    register_method(_name, _settings, _SHIPPED["losses"].get(_name))
