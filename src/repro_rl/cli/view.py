"""``repro-rl view``: the local page on recorded episodes."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from repro_rl.cli.app import app
from repro_rl.cli.options import take_folders
from repro_rl.cli.show import say


@app.command()
def view(
    runs: Annotated[
        list[Path], typer.Argument(help="run folders; those of a run that still trains are fine")
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="port to listen on; 0: a free one")] = 0,
    open_page: Annotated[
        bool | None,
        typer.Option("--open/--no-open", help="open it in a browser  \\[default: where there is a screen]"),
    ] = None,
) -> None:
    """Filter the recorded episodes and step through them, in a browser on this machine. Ctrl-C ends it."""
    from repro_rl.report.view import make_server

    runs = take_folders(runs)
    server = make_server(runs, port)
    say(f"Episodes of {', '.join(map(str, runs))}: {server.url}  (Ctrl-C ends it)")
    if _has_screen() if open_page is None else open_page:
        threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        say("Ended.")
    finally:
        server.server_close()


def _has_screen() -> bool:
    """Is there a person with a graphical browser? A text browser would take the terminal."""
    if not sys.stdout.isatty() or os.environ.get("SSH_CONNECTION"):
        return False
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
