"""Evaluate a model behind an OpenAI-compatible API on a fixed panel, reflections included.

    python examples/evaluate_api_model.py http://localhost:8000/v1 MODEL --tasks 20

Prints success with its interval, and how well the model judged its own steps afterwards, against the
environment's ground truth. The key, if the server wants one, is read from the variable that --key-env names.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import repro_rl as rr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base_url", help="what stands before /chat/completions")
    parser.add_argument("model", help="as the server calls it")
    parser.add_argument("--recipe", default="sokoban-qwen3", help="a recipe with full prompts")
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--key-env", help="NAME of the environment variable with the key")
    parser.add_argument("--out", type=Path, help="folder for the result and the episodes")
    arguments = parser.parse_args()
    settings = [
        f"api.base_url={arguments.base_url}",
        f"api.model={arguments.model}",
        f"eval.tasks={arguments.tasks}",
    ]
    settings += [f"api.key_env={arguments.key_env}"] if arguments.key_env else []
    config = rr.load_config(arguments.recipe, settings)
    out = arguments.out or Path(tempfile.mkdtemp(prefix="repro-rl-api-"))
    result = rr.evaluate(config, Path(f"api:{arguments.model}"), rr.EvalRequest("api", out=out))
    low, high = result["low"], result["high"]
    print(f"{result['panel']}: success {result['success']:.3f} [{low:.3f}, {high:.3f}]")
    print(f"valid actions {1 - result['invalid_rate']:.2f}, readable answers {result['format_rate']:.2f}")
    judged = result["progress"]["retrospective"]
    error = "unknown" if judged["mae"] is None else f"{judged['mae']:.1f} points of 100"
    print(f"reflections read {judged['covered'] or 0:.2f}, their error {error}")
    print(f"{result['api']['calls_sent']} calls; episodes in {out / 'trajectories'}")


if __name__ == "__main__":
    main()
