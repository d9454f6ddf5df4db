"""Digests of prompt templates: they tell prompts apart whose settings are the same."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from repro_rl.errors import ConfigError
from repro_rl.text.prompts import CHAT, TEMPLATES

OWN = "templates"  # in manifests: the digest of a user's templates
PACKAGE = "package_templates"  # and of the package's own, as far as they are used


# The words of our templates for methods that reflect. A digest is that of the templates with or without them.
_REFLECTING = re.compile(rb"\{% if reflects %\}(.*?)\{% endif \+?%\}", re.DOTALL)


def template_digests(
    style: Literal["full", "compact"], folder: Path | None, *, chat: bool = False, reflects: bool = True
) -> dict[str, str]:
    """Both digests, by their names in manifests; that of a user's templates only with a ``folder``.

    Arguments and errors are those of ``package_digest``.
    """
    own = templates_digest(folder)
    return {
        **({} if own is None else {OWN: own}),
        PACKAGE: package_digest(style, folder, chat=chat, reflects=reflects),
    }


def templates_digest(folder: Path | None) -> str | None:
    """SHA-256 of the templates in a user's folder, by name and content; None without a folder.

    Raises ConfigError where one cannot be read.
    """
    return None if folder is None else _digest(folder, folder.rglob("*.jinja"))


def package_digest(
    style: Literal["full", "compact"], folder: Path | None, *, chat: bool, reflects: bool = True
) -> str:
    """SHA-256 of the package's own templates of a style, by name and content, as far as prompts use them.

    ``folder``: a user's, whose files replace those of the same name. ``chat``: conversations have templates
    for their turns. ``reflects``: whether the method asks for reflections. With them a digest is that of the
    versions whose templates did not tell. Raises ConfigError where one cannot be read.
    """
    own = TEMPLATES / style
    replaced = () if folder is None else [path.name for path in folder.glob("*.jinja")]
    unused = {*replaced, *(() if chat else CHAT)}
    words = rb"\1" if reflects else b""
    used = (path for path in own.glob("*.jinja") if path.name not in unused)
    return _digest(own, used, lambda content: _REFLECTING.sub(words, content))


def _digest(
    folder: Path, files: Iterable[Path], read_as: Callable[[bytes], bytes] = lambda content: content
) -> str:
    digest = hashlib.sha256()
    try:
        for path in sorted(files):
            content = read_as(path.read_bytes())
            digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode())
            digest.update(content)
    except OSError as error:
        raise ConfigError(f"A template in {folder} cannot be read: {error}") from error
    return digest.hexdigest()
