"""Settings of a run that somebody else made, which are not used without a word of the person here.

A run folder is data. Its config.yaml is signed when it is written (see ``files.signature``). Without this
account's signature, the settings named here are taken out, unless the person names them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from repro_rl.config.recipe_files import env_name
from repro_rl.config.run import RunConfig
from repro_rl.config.values import env_schema, name_in
from repro_rl.errors import DataError
from repro_rl.files import read_text
from repro_rl.files.limits import MAX_YAML
from repro_rl.files.signature import is_signed, signed

# Setting -> what it does. All of these are empty by default.
NOT_TRUSTED = {
    "plugins": "imports Python modules",
    "policy.trust_remote_code": "runs Python code that a model brings along",
    "policy.vllm.server.url": "sends weights and prompts to this address",
    "policy.vllm.server.key_env": "sends the content of this environment variable to the server",
    "policy.vllm.server.weights": "writes weights into this folder",
    "prompt.template_dir": "reads prompt templates from this folder",
    "train.callbacks": "imports Python modules and calls them",
    "train.trackers": "sends metrics, settings and episodes to trackers",
    "train.tracking.address": "sends metrics, settings and episodes to this address",
    "eval.panel": "reads a list of tasks from this file",
    "api.base_url": "sends prompts to this address",
    "api.key_env": "sends the content of this environment variable to the server",
    "api.extra": "adds fields to every request to the server",
    "api.cache": "reads and writes answers in this folder",
}
ENV_PATH = "may name a file or an address that the environment reads"
ENV_NAME = re.compile("[A-Z_][A-Z0-9_]*")
MAX_SHOWN = 200  # characters of a value in a message

Withheld = dict[tuple[str, ...], Any]  # by the parts of the setting's name


def signed_config(text: str) -> str:
    """Settings as they are written into a run folder: with this account's signature."""
    return signed(text)


def is_own(path: Path) -> bool:
    """Whether this account wrote the file, and nobody has edited it since."""
    try:
        return is_signed(read_text(path, MAX_YAML))
    except DataError:  # whoever reads the settings says so
        return False


def withhold(data: dict[str, Any], run: Path) -> Withheld:
    """Take what is not trusted out of nested settings, in place, and return it.

    Data inside the folder ``run`` itself may be read.
    """
    names = [tuple(name.split(".")) for name in NOT_TRUSTED]
    section = data.get("env")
    values = section.get("settings") if isinstance(section, dict) else None
    if isinstance(values, dict):
        names += [
            ("env", "settings", key) for key in values if _is_risky(env_name(data), key, values[key], run)
        ]
    withheld: Withheld = {}
    for keys in names:
        parent: Any = data
        for key in keys[:-1]:
            parent = parent.get(key) if isinstance(parent, dict) else None
        if isinstance(parent, dict) and parent.get(keys[-1]):
            withheld[keys] = parent.pop(keys[-1])
    return withheld


def put_back(data: dict[str, Any], withheld: Withheld) -> None:
    """Write what was withheld into nested settings, in place."""
    for keys, value in withheld.items():
        target = data
        for key in keys[:-1]:
            target = target.setdefault(key, {})
        target[keys[-1]] = value


def question(path: Path, withheld: Withheld, *, advice: bool) -> str:
    """What a person is told about settings in the file ``path`` that are not trusted."""
    lines = [
        f"{path} was not written on this account, or was edited since, and has settings that are not trusted:"
    ]
    lines += [
        f"  {'.'.join(keys)} = {_shown(keys, value)}: {_effect(keys)}" for keys, value in withheld.items()
    ]
    if advice:
        name = ".".join(next(iter(withheld)))
        lines.append(
            f"Give your own on the command line, as {name}=..., or take the whole file as yours: -c {path} "
            "(in Python: load_config of the file, or load_run(folder, trust=True))."
        )
    return "\n".join(lines)


def risky_overrides(overrides: Sequence[str], env: object = None) -> list[str]:
    """Those of ``section.key=value`` that would be withheld, or replace a whole section.

    ``env``: the environment's name, where it is known.
    """
    return [text for text in overrides if _is_risky_name(name_in(text), env)]


def _is_risky_name(name: str, env: object) -> bool:
    if any(
        name == known or known.startswith(f"{name}.") or name.startswith(f"{known}.") for known in NOT_TRUSTED
    ):
        return True
    if name in ("env", "env.settings"):
        return True
    if not name.startswith("env.settings."):
        return False
    schema = env_schema(env if env is not None else RunConfig().env.name)
    field = None if schema is None else schema.model_fields.get(name.removeprefix("env.settings."))
    return field is None or _is_path(field.annotation)


def _is_path(annotation: Any) -> bool:
    return annotation is Path or Path in get_args(annotation)


def _effect(keys: tuple[str, ...]) -> str:
    return NOT_TRUSTED.get(".".join(keys), ENV_PATH)


def _shown(keys: tuple[str, ...], value: Any) -> str:
    if keys[-1] == "key_env" and not ENV_NAME.fullmatch(str(value)):
        return "(not shown)"  # it may be a key instead of the name of one
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _is_risky(env: Any, key: Any, value: Any, run: Path) -> bool:
    """Whether a setting of an environment names a file outside ``run``, or is of an unknown environment."""
    schema = env_schema(env if env is not None else RunConfig().env.name)
    if schema is None:
        return isinstance(value, str | list | dict)
    field = schema.model_fields.get(str(key))
    if field is None or not _is_path(field.annotation):
        return False
    return value is not None and not Path(str(value)).resolve().is_relative_to(run.resolve())
