"""What a run was made from beside its settings, as its manifest says: a continuation must have the same."""

from __future__ import annotations

from pathlib import Path

from repro_rl.errors import ConfigError
from repro_rl.run.model_paths import read_manifest

DEMOS = "demos"  # in manifest.json: the folder of the demonstrations
DEMOS_DIGEST = "demos_digest"  # and the digest of their content, see ``demos.store.demos_digest``


def check_same_demos(run: Path, demos: Path, digest: str) -> None:
    """Raises ConfigError where ``run`` was made from demonstrations with another digest.

    The path may differ: folders may be moved. Manifests of older versions have no digest.
    """
    manifest = read_manifest(run)
    before = manifest.get(DEMOS_DIGEST)
    if before not in (None, digest):
        raise ConfigError(
            f"{run} was made from other demonstrations: from {manifest.get(DEMOS)} with content "
            f"{str(before)[:12]}, while {demos} has content {digest[:12]} now. Continue it with the "
            "demonstrations that it was made from, or use another folder."
        )
