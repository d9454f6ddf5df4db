"""The environments' ids in gymnasium: ``gymnasium.make("repro_rl/Sokoban-v0")``.

From version 1.0 on, gymnasium reads no entry points: ids are there once their package is imported. Importing
repro_rl must not import gymnasium, which takes longer than all the rest. So the ids are registered at once
where gymnasium is imported already, and otherwise as soon as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

PACKAGE = "gymnasium"
ENVIRONMENTS = {"Sokoban-v0": "sokoban", "ALFWorld-v0": "alfworld", "WebShop-v0": "webshop"}


def register() -> None:
    """Add the ids that are not there yet."""
    from gymnasium.envs.registration import register as add, registry

    for name, env in ENVIRONMENTS.items():
        if f"repro_rl/{name}" not in registry:
            add(
                f"repro_rl/{name}",
                entry_point="repro_rl.integrations.gymnasium:GymEnv",
                kwargs={"env": env},
                disable_env_checker=True,  # tests run it; else it runs at the first steps of each
            )


def register_with_gymnasium() -> None:
    """Register now, or when gymnasium has been imported."""
    if PACKAGE in sys.modules:
        register()
    elif not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())


# Neither class has a base of importlib.abc: importing that takes longer than importing repro_rl.
class _Watch:
    """A finder of nothing but gymnasium, once: with a loader that registers the ids afterwards."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != PACKAGE:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(PACKAGE)
        if spec is not None and spec.loader is not None:
            loader: Any = _Registering(spec.loader)
            spec.loader = loader
        return spec


class _Registering:
    """Another loader, and ``register`` after it."""

    def __init__(self, loader: Any):
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self.loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        register()
