"""Digests of prompt templates: they tell prompts apart whose settings are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from repro_rl.errors import ConfigError
from repro_rl.text.prompts import CHAT, TEMPLATES

OWN = "templates"  # in manifests: the digest of a user's templates
PACKAGE = "package_templates"  # and of the package's own, as far as they are used


def template_digests(
    style: Literal["full", "compact"], folder: Path | None, *, chat: bool = False
) -> dict[str, str]:
    """Both digests, by their names in manifests; that of a user's templates only with a ``folder``.

    Arguments and errors are those of ``package_digest``.
    """
    own = templates_digest(folder)
    return {**({} if own is None else {OWN: own}), PACKAGE: package_digest(style, folder, chat=chat)}


def templates_digest(folder: Path | None) -> str | None:
    """SHA-256 of the templates in a user's folder, by name and content; None without a folder.

    Raises ConfigError where one cannot be read.
    """
    return None if folder is None else _digest(folder, folder.rglob("*.jinja"))


def package_digest(style: Literal["full", "compact"], folder: Path | None, *, chat: bool) -> str:
    """SHA-256 of the package's own templates of a style, by name and content, as far as prompts use them.

    ``folder``: a user's, whose files replace those of the same name. ``chat``: conversations have templates
    for their turns. Raises ConfigError where one cannot be read.
    """
    own = TEMPLATES / style
    replaced = () if folder is None else [path.name for path in folder.glob("*.jinja")]
    unused = {*replaced, *(() if chat else CHAT)}
    return _digest(own, (path for path in own.glob("*.jinja") if path.name not in unused))


def _digest(folder: Path, files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    try:
        for path in sorted(files):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode())
            digest.update(content)
    except OSError as error:
        raise ConfigError(f"A template in {folder} cannot be read: {error}") from error
    return digest.hexdigest()
