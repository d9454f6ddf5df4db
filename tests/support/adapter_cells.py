"""The column of an adapter in docs/capabilities.md beside what was tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from repro_rl.envs import ENVS, SokobanEnv
from repro_rl.errors import ReproError
from repro_rl.integrations.adapters import FEATURES, TRAINING, Adapter

MINE = "rooms_of_mine"


@contextmanager
def an_environment_of_mine() -> Iterator[str]:
    """A registered environment that does not ship."""
    with ENVS.isolated():
        ENVS.register(MINE, type("Mine", (SokobanEnv,), {"name": MINE}))
        yield MINE


def works(call: Callable[[], object]) -> bool:
    """Whether ``call`` is true; False where the adapter refuses it, or knows no such argument."""
    try:
        return bool(call())
    except (ReproError, TypeError, AttributeError):
        return False


def assert_column(adapter: Adapter, tried: Mapping[str, bool]) -> None:
    """``tried``: every feature but the last, and whether the adapter has it. The page must say the same."""
    assert dict(tried) == {name: adapter.refusal(name) is None for name in FEATURES if name != TRAINING}
