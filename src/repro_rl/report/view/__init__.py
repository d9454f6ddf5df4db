"""A local page to filter the recorded episodes of runs and to step through them (``repro-rl view``)."""

from repro_rl.report.view.server import ViewServer, make_server

__all__ = ["ViewServer", "make_server"]
