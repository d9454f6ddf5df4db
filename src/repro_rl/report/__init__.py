"""One self-contained HTML page about one or several runs: figures, tables and a trajectory viewer."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from repro_rl.report.page import build_report

__all__ = ["build_report"]

# Imported when it is first used: the viewer below this package starts without figures and environments.
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={"page": ["build_report"]})
