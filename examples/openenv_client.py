"""An expert's game over the wire: an OpenEnv server of Sokoban and its client (needs repro-rl[openenv]).

python examples/openenv_client.py
"""

import subprocess
import sys
import time

import httpx

from repro_rl.integrations.openenv import TextClient

URL = "http://127.0.0.1:8765"
server = subprocess.Popen(
    [sys.executable, "-m", "repro_rl.integrations.openenv", "serve", "sokoban", "--port", "8765"]
)
try:
    for _ in range(600):
        try:
            httpx.get(f"{URL}/health", trust_env=False)
            break
        except httpx.TransportError:
            time.sleep(0.1)
    with TextClient(base_url=URL).sync() as client:
        result = client.reset(split="test", index=0)
        print(result.observation.text)
        for action in ("down", "down", "up", "left"):
            result = client.step(action)
            print(f"> {action}   valid {result.observation.valid}, reward {result.reward}")
        print("true progress", client.state().progress)
finally:
    server.terminate()
