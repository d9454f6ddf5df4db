"""Our environments as OpenEnv 0.10 servers (docs/adapters.md).

``create_app`` builds the server, ``TextClient`` talks to it. ``python -m repro_rl.integrations.openenv``
serves an environment, and measures the figures of its ``openenv.yaml``. All but the figures need the extra
"openenv".
"""

from importlib import import_module
from typing import Any

from repro_rl.errors import missing_extra

_MODULES = {
    "create_app": "server",
    "TextEnvironment": "environment",
    "TextClient": "client",
    "TextAction": "models",
    "TextObservation": "models",
    "TextState": "models",
}


def __getattr__(name: str) -> Any:
    """A public name. Raises MissingDependencyError without openenv."""
    if name not in _MODULES:
        raise AttributeError(f"{__name__} has no {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        raise missing_extra(error) from error
