"""Sokoban as an OpenEnv server: ``uvicorn server.app:app``."""

import uvicorn

from repro_rl.integrations.openenv import create_app

app = create_app("sokoban")


def main() -> None:
    """Serve on port 8000."""
    uvicorn.run(app, host="0.0.0.0", port=8000)


if __name__ == "__main__":
    main()
