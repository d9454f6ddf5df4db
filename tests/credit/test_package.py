"""What credit needs: records and numbers, no model and no environment."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import repro_rl.credit

MAY_IMPORT = {
    "types",
    "errors",
    "files",
    "registry",
    "random_streams",
    "settings",
    "function_settings",
    "credit",
}
LIBRARIES = {"numpy", "pydantic", *sys.stdlib_module_names}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import"
            names.add(str(node.module))
    return names


def test_credit_imports_only_the_lowest_floor() -> None:
    for path in Path(repro_rl.credit.__file__).parent.rglob("*.py"):
        for name in imported(path):
            first, *rest = name.split(".")
            if first == "repro_rl":
                assert rest, f"{path.name} imports the whole package"
                assert rest[0] in MAY_IMPORT, f"{path.name} imports {name}"
            else:
                assert first in LIBRARIES, f"{path.name} imports {name}"


def test_every_public_name_exists() -> None:
    for name in repro_rl.credit.__all__:
        assert name in vars(repro_rl.credit)
