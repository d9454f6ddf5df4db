"""One self-contained HTML page about one or several runs: figures, tables and a trajectory viewer."""

from repro_rl.report.page import build_report

__all__ = ["build_report"]
