"""Rules (PDDL) and texts (a grammar) of a generated household, for the original engine.

Written for this package, in the two formats of the original one: ``household_domain.pddl`` and
``household_texts.yaml``. They allow and print the same as the official files, which the tests compare. The
native engine has both built in and reads neither.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from repro_rl.envs.alfworld.engine import HELP, WELCOME
from repro_rl.files import TABLE, read_yaml

Rule = list[dict[Literal["condition", "rhs"], str]]


@dataclass(slots=True, frozen=True)
class _Action:
    """An action of the domain."""

    __pydantic_config__ = TABLE
    command: str
    texts: Rule  # what it prints


@dataclass(slots=True, frozen=True)
class _Texts:
    """The whole file; the rules are explained there."""

    __pydantic_config__ = TABLE
    parts: dict[str, Rule]
    actions: dict[str, _Action]


@cache
def domain() -> str:
    """The rules of a household in PDDL."""
    return Path(__file__).with_name("household_domain.pddl").read_text(encoding="utf-8")


@cache
def _texts() -> _Texts:
    texts = read_yaml(Path(__file__).with_name("household_texts.yaml"), _Texts)
    for rule in (*texts.parts.values(), *(action.texts for action in texts.actions.values())):
        for text in rule:
            text["rhs"] = text["rhs"].replace("$WELCOME", WELCOME).replace("$HELP", HELP)
    return texts


def grammar(task: str) -> str:
    """The texts of a game in the original engine's format; ``task``: the sentence "Your task is to: ..."."""
    texts = _texts()
    rules: dict[str, Rule] = {"task": [{"rhs": task}], **texts.parts}
    rules |= {f"{name}.said": action.texts for name, action in texts.actions.items()}
    parts = [f'grammar :: """\n{json.dumps(rules, indent=1)}\n""";']
    parts += [
        f'action {name} {{\n  template :: "{action.command}";\n  feedback :: "#{name}.said#";\n}}'
        for name, action in texts.actions.items()
    ]
    return "\n\n".join(parts) + "\n"
