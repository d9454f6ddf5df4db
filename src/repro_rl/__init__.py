"""RePro: retrospective progress-aware training of LLM agents (arXiv 2606.14302).

The public names are those of ``__init__.pyi``. Each is imported when it is first used, so that ``import
repro_rl`` is fast and does not need torch. docs/library.md explains the parts with examples.
"""

from typing import Any

import lazy_loader

from repro_rl.errors import missing_extra
from repro_rl.gymnasium_ids import register_with_gymnasium

__version__ = "0.2.0"
_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

register_with_gymnasium()


def __getattr__(name: str) -> Any:
    """A public name. Raises MissingDependencyError where it needs an extra that is not installed."""
    try:
        return _load(name)
    except ModuleNotFoundError as error:
        raise missing_extra(error) from error
