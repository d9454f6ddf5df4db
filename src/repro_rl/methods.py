"""The methods by name: RePro-PO, its baselines, controls and ablations, each as ``MethodSection`` settings.

The trainer knows no method names: a method is what its fields say.
"""

from __future__ import annotations

from typing import Any

from repro_rl.registry import Registry

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
