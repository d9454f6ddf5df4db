"""Checks of what somebody else wrote, such as an environment or a model: each ends in a result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from repro_rl.errors import EnvError, place_of


class FailedCheck(Exception):
    """What is checked is not as it must be; the message becomes the detail of the check."""


class Doubt(Exception):
    """It is as it must be, and this is probably not meant; the message becomes the detail of the check."""


@dataclass(slots=True, frozen=True)
class Check:
    """The result of one check. ``detail``: a count when ok; else what is wrong, with task and step."""

    name: str
    ok: bool
    detail: str
    doubt: bool = False  # ok, and what ``detail`` says is probably not meant


def guarded(name: str, check: Callable[[], str], said: type[Exception] = EnvError) -> Check:
    """The result of ``check``, which returns its detail or raises FailedCheck or Doubt. Never raises.

    ``said``: errors whose message says all; of any other the detail has its kind and place too.
    """
    try:
        return Check(name, True, check())
    except Doubt as doubt:
        return Check(name, True, str(doubt), doubt=True)
    except (FailedCheck, said) as error:
        return Check(name, False, str(error))
    except Exception as error:  # what is under test may raise anything
        return Check(name, False, f"raised {type(error).__name__}: {error}{place_of(error)}")
