"""Tokens of action and reflection prompts, full style, counted with Qwen's own tokenizer.

``python benchmarks/prompt_tokens.py --ranks qwen.tiktoken [--webshop FOLDER] [--alfworld FOLDER]``: one core,
no GPU. Plays the expert, a half-random and a random player on every task; nothing is shortened. The column
"saved" is what ``prompt.admissible=off`` leaves out. It is a share of all tokens of action prompts (window),
and of all tokens of the user turns of conversations (chat).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from repro_rl import make
from repro_rl.demos.collect import play
from repro_rl.envs.base import TextEnv
from repro_rl.plan.tokens import NOISES, count_tokens, quantiles, share_over
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.policy.tokens.qwen_tokenizer import build_tokenizer, read_ranks
from repro_rl.rollout.context.base import replayed
from repro_rl.text import PromptBuilder, TextFormat, TurnPrompts


def turn_tokens(
    env: TextEnv, tasks: list[str], prompts: tuple[PromptBuilder, ...], codec: TextCodec
) -> list[int]:
    """Tokens of all user turns that act, with each of ``prompts``: one episode of every task and noise."""
    turns = [TurnPrompts(each) for each in prompts]
    totals = [0] * len(prompts)
    rng = np.random.default_rng(0)
    for noise in NOISES:
        for task in tasks:
            for inputs, _ in replayed(env, play(env, task, noise, rng)):
                for index, turn in enumerate(turns):
                    totals[index] += codec.turn_size(turn.act(inputs), first=inputs.step == 1)
    return totals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--ranks", type=Path, required=True, help="Qwen's BPE ranks, qwen.tiktoken")
    parser.add_argument("--webshop", type=Path, help="folder with WebShop's own data files")
    parser.add_argument("--alfworld", type=Path, help="folder with official ALFWorld games")
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--history", type=int, default=2)
    parser.add_argument("--action", type=int, default=2048, help="limit of action prompts")
    parser.add_argument("--reflect", type=int, default=4096, help="limit of reflection prompts")
    arguments = parser.parse_args()

    ranks = read_ranks(arguments.ranks)
    codecs = {family: TextCodec(build_tokenizer(ranks, family), chat="on") for family in ("qwen2.5", "qwen3")}
    fmt = TextFormat("full", progress=True, think="optional")
    prompts = PromptBuilder(fmt, history=arguments.history)
    unlisted = PromptBuilder(fmt, history=arguments.history, admissible=False)
    cases: list[tuple[str, str, str, dict[str, Any]]] = [
        ("WebShop compact, generated", "qwen2.5", "webshop", {"style": "compact"}),
        ("WebShop text, generated", "qwen2.5", "webshop", {"style": "text"}),
        ("ALFWorld, generated", "qwen2.5", "alfworld", {"style": "text"}),
        ("Sokoban grid", "qwen3", "sokoban", {"style": "grid"}),
        ("Sokoban coordinates", "qwen3", "sokoban", {"style": "coordinates"}),
    ]
    if arguments.webshop:
        data = {"data": str(arguments.webshop)}
        cases.insert(2, ("WebShop compact, real", "qwen2.5", "webshop", {"style": "compact", **data}))
        cases.insert(3, ("WebShop text, real", "qwen2.5", "webshop", {"style": "text", **data}))
    if arguments.alfworld:
        cases.append(("ALFWorld, official", "qwen2.5", "alfworld", {"data": str(arguments.alfworld)}))
    print(
        f"history {arguments.history}, {arguments.tasks} tasks x 3 players; median / 95 % / max tokens; "
        f"share over {arguments.action} and {arguments.reflect}"
    )
    print(
        f"{'environment':<28}{'steps':>6}  {'action':>20}{'over':>7}  {'reflection':>21}{'over':>7}"
        f"  {'answer':>8}  {'saved: window':>13} {'chat':>6}"
    )
    for name, family, env_name, settings in cases:
        env = make(env_name, **settings)
        split = env.panel("train").ids
        stride = max(1, len(split) // arguments.tasks)
        tasks, codec = list(split[::stride][: arguments.tasks]), codecs[family]
        table, without = (count_tokens(env, tasks, each, codec) for each in (prompts, unlisted))
        window = 1 - sum(without.action) / sum(table.action)
        listed, bare = turn_tokens(env, tasks, (prompts, unlisted), codec)
        action, reflect = quantiles(table.action), quantiles(table.reflect)
        print(
            f"{name:<28}{sum(table.episode_steps) / len(table.episode_steps):>6.1f}  "
            f"{' / '.join(map(str, action)):>20}{share_over(table.action, arguments.action):>7.1%}  "
            f"{' / '.join(map(str, reflect)):>21}{share_over(table.reflect, arguments.reflect):>7.1%}  "
            f"{quantiles(table.action_target)[0]:>3} /{quantiles(table.reflect_target)[1]:>4}"
            f"  {window:>13.1%} {1 - bare / listed:>6.1%}"
        )


if __name__ == "__main__":
    main()
