"""Speed and memory of the WebShop environment: ``python benchmarks/webshop.py`` (one core, no GPU).

Real products: ``--data FOLDER`` with the original's files. Against the original: ``--original CHECKOUT`` of
princeton-nlp/WebShop whose own environment runs in this Python (Java, pyserini, spaCy and all); both then
play the same actions in turn.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import repro_rl
from repro_rl.envs.webshop import WebShopEnv

START = """
import sys, time
begin = time.perf_counter()
import repro_rl
env = repro_rl.make("webshop", **{settings!r})
env.reset(options={{"task": env.panel("test").ids[0]}})
env.step("search[warm coat]")
print(time.perf_counter() - begin)
"""


def memory() -> float:
    """Resident memory of this process, MB (Linux; elsewhere the peak)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


class Shopper:
    """A random visitor: searches, turns pages, opens products, chooses options, reads, sometimes buys."""

    def __init__(self, words: list[str], seed: int):
        self.words, self.rng = words, random.Random(seed)

    def query(self) -> str:
        return f"search[{' '.join(self.rng.choices(self.words, k=self.rng.randint(2, 8)))}]"

    def __call__(self, available: dict[str, Any]) -> tuple[str, str]:
        """(kind, action) from the clickables of a page."""
        rng, names = self.rng, available["clickables"]
        if available["has_search_bar"] or not names:
            return "search", self.query()
        if "buy now" in names:
            options = names[names.index("buy now") + 1 :]
            draw = rng.random()
            if options and draw < 0.55:
                return "option", f"click[{rng.choice(options)}]"
            if draw < 0.75:
                return "sub-page", f"click[{rng.choice(['description', 'features', 'reviews'])}]"
            if draw < 0.8:
                return "buy", "click[buy now]"
            return "back", f"click[{rng.choice(['back to search', '< prev'])}]"
        if names == ["back to search", "< prev"]:
            return "prev", "click[< prev]"
        draw = rng.random()
        products = [name for name in names if name not in ("back to search", "< prev", "next >")]
        if products and draw < 0.6:
            return "item", f"click[{rng.choice(products)}]"
        if draw < 0.8:
            return "page", f"click[{rng.choice([n for n in names if n in ('< prev', 'next >')])}]"
        return "search", self.query()


def vocabulary(env: WebShopEnv) -> list[str]:
    """Words of the products' titles, for random queries that rarely repeat."""
    catalogue = env.shop.catalogue
    count = min(len(catalogue), 2_000)
    return sorted(
        {w for n in range(count) for w in catalogue.product(n).title.lower().split() if w.isalnum()}
    )


def stepping(envs: list[WebShopEnv], seconds: float, seed: int = 0) -> tuple[float, Counter[str]]:
    """Random visits in all environments in turn: (steps a second, resets included, kinds of steps)."""
    shoppers = [Shopper(vocabulary(envs[0]), seed + i) for i in range(len(envs))]
    ids = envs[0].panel("train").ids
    rng = random.Random(seed)
    kinds: Counter[str] = Counter()
    for env in envs:
        env.reset(options={"task": rng.choice(ids)})
    spent, begin = 0.0, time.perf_counter()
    steps = 0
    while spent < seconds:
        for env, shopper in zip(envs, shoppers, strict=True):
            kind, action = shopper(env.available_actions())
            kinds[kind] += 1
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset(options={"task": rng.choice(ids)})
        steps += len(envs)
        spent = time.perf_counter() - begin
    return steps / spent, kinds


def original_environment(checkout: Path, products: int) -> Any:
    """The original's text environment. Imports it from the checkout."""
    sys.path.insert(0, str(checkout))
    from web_agent_site.envs.web_agent_text_env import WebAgentTextEnv  # type: ignore[import-not-found]

    return WebAgentTextEnv(observation_mode="text", num_products=products, human_goals=False)


def against(checkout: Path, env: WebShopEnv, episodes: int) -> None:
    """The same random visits in both, in turn; goals differ (the original shuffles), pages cost alike."""
    begin, before = time.perf_counter(), memory()
    other = original_environment(checkout, len(env.shop.catalogue))
    print(f"original: start {time.perf_counter() - begin:.1f} s, {memory() - before:.0f} MB")
    shopper = Shopper(vocabulary(env), 1)
    seconds, steps = [0.0, 0.0], [0, 0]
    for episode in range(episodes):
        other.reset(session=episode)
        env.reset(options={"task": env.panel("all").ids[episode % len(env.panel("all"))]})
        ours_live = theirs_live = True
        for _ in range(env.max_steps):
            if not (ours_live and theirs_live):
                break
            _, action = shopper(other.get_available_actions())
            begin = time.perf_counter()
            theirs_live = not other.step(action)[2]
            seconds[1] += time.perf_counter() - begin
            begin = time.perf_counter()
            _, _, terminated, truncated, _ = env.step(action)
            seconds[0] += time.perf_counter() - begin
            ours_live = not (terminated or truncated)
            steps = [steps[0] + 1, steps[1] + 1]
    rates = [count / spent for count, spent in zip(steps, seconds, strict=True)]
    print(
        f"same actions: ours {rates[0]:.0f} steps/s, original {rates[1]:.1f}, {rates[0] / rates[1]:.0f} times"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="folder with the original's product files, or an imported catalogue")
    parser.add_argument("--original", type=Path, help="checkout of the original WebShop")
    parser.add_argument("--seconds", type=float, default=5.0, help="measuring time of each part")
    parser.add_argument("--episodes", type=int, default=20, help="episodes against the original")
    arguments = parser.parse_args()
    settings = {"data": arguments.data} if arguments.data else {}

    env = repro_rl.make("webshop", **settings)
    assert isinstance(env, WebShopEnv)
    print(f"{len(env.shop.catalogue)} products, {len(env.shop.goals)} goals, {env.panel('test').label()}")
    starts = [
        float(
            subprocess.run(
                [sys.executable, "-c", START.format(settings=settings)],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for _ in range(3)
    ]
    print(f"start from cache to the first search, new process: {min(starts):.2f} s (best of 3)")
    for style in ("text", "compact", "text_rich", "words"):
        one = repro_rl.make("webshop", style=style, **settings)
        assert isinstance(one, WebShopEnv)
        rate, kinds = stepping([one], arguments.seconds)
        mix = "  ".join(f"{kind} {count / kinds.total():.0%}" for kind, count in kinds.most_common())
        print(f"step {style:10} {rate:8.0f} steps/s   {mix}")
    stepping([env], 1.0)
    before = memory()
    many = [env, *(repro_rl.make("webshop", **settings) for _ in range(127))]
    rate, _ = stepping([e for e in many if isinstance(e, WebShopEnv)], arguments.seconds)
    grown = memory() - before
    print(f"128 environments: {rate:.0f} steps/s, {grown:.1f} MB more than one ({memory():.0f} MB in all)")
    if arguments.original:
        against(arguments.original, env, arguments.episodes)


if __name__ == "__main__":
    main()
