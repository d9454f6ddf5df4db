"""What a run was made from beside its settings, as its manifest says: a continuation must have the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from repro_rl.errors import ConfigError
from repro_rl.files import check_record
from repro_rl.files.names import MANIFEST_FILE
from repro_rl.files.records import Text
from repro_rl.run.model_paths import read_manifest

DEMOS = "demos"  # in manifest.json: the folder of the demonstrations
DEMOS_DIGEST = "demos_digest"  # and the digest of their content, see ``demos.store.demos_digest``


class _Panel(TypedDict):
    """What is compared of a panel's entry in the manifest."""

    digest: Text


class _Panels(TypedDict, total=False):
    """What is compared of a manifest; other kinds of runs have none."""

    panels: dict[str, _Panel]


def check_same_demos(run: Path, demos: Path, digest: str) -> None:
    """Raises ConfigError where ``run`` was made from demonstrations with another digest.

    The path may differ: folders may be moved. Manifests of older versions have no digest.
    """
    manifest = read_manifest(run)
    before = manifest.get(DEMOS_DIGEST)
    if before not in (None, digest):
        path = manifest.get(DEMOS)  # a training has its demonstrations from the settings
        there = "" if path is None else f"from {path} "
        raise ConfigError(
            f"{run} was made from other demonstrations: {there}with content {str(before)[:12]}, while "
            f"{demos} has content {digest[:12]} now. Continue it with the demonstrations that it was made "
            "from, or use another folder."
        )


def check_same_panels(run: Path, panels: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises ConfigError where ``run`` began with other tasks than ``panels``, its entries in the manifest.

    Only for panels whose settings bind on a continuation: then a digest differs where the data do.
    """
    path = run / MANIFEST_FILE
    before = check_record(_Panels, read_manifest(run), file=path).get("panels", {})
    for name, panel in panels.items():
        if name in before and before[name]["digest"] != panel["digest"]:
            raise ConfigError(
                f"{run}: the {name} panel has other tasks than when the run began: digest "
                f"{panel['digest'][:12]} now, {before[name]['digest'][:12]} in {path}. The data or the "
                "environment were changed since. Continue with those that it began with, or use another "
                "folder."
            )
