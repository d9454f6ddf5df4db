"""The methods by name: RePro-PO, its baselines, controls and ablations, each as ``MethodSection`` settings.

The trainer knows no method names: a method is what its fields say.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from repro_rl.credit import CREDIT, CreditSettings, RewardSettings
from repro_rl.registry import Registry

if TYPE_CHECKING:
    from repro_rl.config import RunConfig

Settings = TypeVar("Settings", RewardSettings, CreditSettings)

METHODS: Registry[dict[str, Any]] = Registry("method", group="repro_rl.methods")

_ACT = {"progress": False, "reflect": False, "shaping": "none", "alignment": "none"}
_META = {"progress": True, "reflect": False, "shaping": "none", "alignment": "none"}
_REPRO = {
    "progress": True,
    "reflect": True,
    "shaping": "retrospective",
    "alignment": "retrospective",
    "format_coef": 0.1,
    "boundary_coef": 0.1,
}

# Baselines (METHOD: "Baselines that must run").
METHODS.register("grpo", {**_ACT, "credit": "grpo"})
METHODS.register("rloo", {**_ACT, "credit": "rloo"})
METHODS.register("gigpo", {**_ACT, "credit": "gigpo"})
METHODS.register("hgpo", {**_ACT, "credit": "hgpo"})
METHODS.register("meta", {**_META})  # online progress in the prompt, outcome reward only
METHODS.register("l1", {**_META, "format_coef": 0.1})  # meta + format penalty
METHODS.register(
    "l2", {**_META, "format_coef": 0.1, "shaping": "online"}
)  # online differences as step reward
# The method.
METHODS.register("repro", {**_REPRO})
# Controls (our decision): what a perfect judge, and a judge that only counts steps, would give.
METHODS.register("oracle", {**_REPRO, "reflect": False, "shaping": "oracle", "alignment": "oracle"})
METHODS.register("linear", {**_REPRO, "reflect": False, "shaping": "linear", "alignment": "linear"})
# The same three without asking for progress while acting (MICRO: emitting it costs success).
METHODS.register("repro-act", {**_REPRO, "progress": False, "alignment": "none"})
METHODS.register("oracle-act", {**_ACT, "shaping": "oracle"})
METHODS.register("linear-act", {**_ACT, "shaping": "linear"})
# Ablations.
METHODS.register("repro-no-alignment", {**_REPRO, "alignment": "none"})
METHODS.register("repro-no-shaping", {**_REPRO, "shaping": "none"})
METHODS.register("repro-no-anchor", {**_REPRO, "anchor": "none"})
# The warm start judges, whatever becomes of the policy (our decision): no learning of the judge at all.
METHODS.register("repro-fixed-judge", {**_REPRO, "judge": "reference"})
METHODS.register("repro-act-fixed-judge", {**METHODS.get("repro-act"), "judge": "reference"})


def reward_settings(config: RunConfig) -> RewardSettings:
    """The terms of a step's reward. Raises ConfigError for an unknown source of progress."""
    return _filled(RewardSettings, config)


def credit_settings(config: RunConfig) -> CreditSettings:
    """What a credit rule needs beside the rewards."""
    return _filled(CreditSettings, config)


def _filled(kind: type[Settings], config: RunConfig) -> Settings:
    """Each field from the setting ``method.<field>``."""
    return kind(**{field.name: getattr(config.method, field.name) for field in fields(kind)})


def check_names(config: RunConfig) -> None:
    """What the method calls by name must be registered; asked when settings are read.

    Raises UnknownNameError for a credit rule, ConfigError for a source of progress.
    """
    CREDIT.get(config.method.credit)
    reward_settings(config)
