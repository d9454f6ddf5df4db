"""The original engine (extra ``repro-rl[alfworld]``): an optional backend, and the oracle of the tests."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from pathlib import Path
from typing import Any

from repro_rl.envs.alfworld.engine import NOTHING
from repro_rl.envs.alfworld.game import read_data
from repro_rl.errors import DataError, MissingDependencyError, install_command

_PUT_FORM = "move {o} to {r}"


class RealPlay:
    """One game in the original engine, with Play's ``intro``, ``admissible``, ``won`` and ``act``."""

    def __init__(self, path: Path):
        try:
            textworld = importlib.import_module("textworld")
            alfred: Any = importlib.import_module("alfworld.agents.environment.alfred_tw_env")
        except ImportError as error:
            raise MissingDependencyError(
                f"engine='textworld' needs the original packages ({error}); {install_command('alfworld')} "
                "on Python 3.11 or 3.12, or use engine='native', which plays the same."
            ) from error
        data = read_data(path)
        if not isinstance(data, dict) or _PUT_FORM not in str(data.get("grammar")):
            raise DataError(
                f"does not know the command {_PUT_FORM!r}: a file of ALFWorld 0.3 or before; play it with "
                "engine='native', or download the files again with alfworld 0.4",
                file=path,
                field="grammar",
            )
        infos = textworld.EnvInfos(won=True, admissible_commands=True, feedback=True)
        wrappers = [alfred.AlfredDemangler(shuffle=False), alfred.AlfredInfos]
        arguments = sys.argv[:]
        try:  # its planner overwrites sys.argv and prints
            with contextlib.redirect_stdout(io.StringIO()):
                self._env = textworld.start(str(path), infos, wrappers=wrappers)
                self._state = self._env.reset()
        finally:
            sys.argv[:] = arguments

    def intro(self) -> str:
        return str(self._state["feedback"])

    def admissible(self) -> list[str]:
        return list(self._state["admissible_commands"])

    def won(self) -> bool:
        return bool(self._state["won"])

    def act(self, command: str) -> str | None:
        """The printed text; None when the command had no effect."""
        self._state, _, _ = self._env.step(command)
        feedback = str(self._state["feedback"])
        return None if feedback == NOTHING else feedback
