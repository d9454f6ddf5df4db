"""vf-eval of a chat model on the first Sokoban tasks (needs repro-rl[verifiers]).

python examples/verifiers_eval.py http://127.0.0.1:8000/v1 MODEL [tasks]     (any OpenAI-compatible server)
"""

import json
import sys
from pathlib import Path
from tempfile import mkdtemp

from verifiers.v1.cli.eval.main import main

url, model, tasks = sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "2"
out = Path(mkdtemp())
where = ["--client.base-url", url, "--client.api-key-var", "MODEL_KEY", "--model", model]
limits = ["--sampling.max-tokens", "200", "--env.player.max-turns", "20"]
main(
    [
        "repro-rl-sokoban",
        "-n",
        tasks,
        *where,
        *limits,
        "--no-push",
        "--no-rich",
        "-o",
        str(out),
        "--run.name",
        "run",
    ]
)
for line in (out / "run" / "traces.jsonl").read_text().splitlines():
    for trace in json.loads(line)["traces"]:
        rewards = {name: entry["score"] for name, entry in trace["rewards"].items()}
        print(trace["task"]["data"]["id"], rewards, trace["metrics"], file=sys.stderr)
