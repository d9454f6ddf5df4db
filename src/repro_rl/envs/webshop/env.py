"""WebShopEnv: the environment contract over catalogue, goals, session and pages."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from repro_rl.envs.base import TextEnv, register_env
from repro_rl.envs.panel import TaskPanel
from repro_rl.envs.webshop import pages, words
from repro_rl.envs.webshop.data.catalogue import locate, open_catalogue
from repro_rl.envs.webshop.expert import next_action, plain_query, progress
from repro_rl.envs.webshop.frozen import FrozenGoals, read_goals, read_prices
from repro_rl.envs.webshop.goals import TYPES, DrawnGoals, Goal, GoalList
from repro_rl.envs.webshop.instructions import instructions
from repro_rl.envs.webshop.reward import Parts
from repro_rl.envs.webshop.session import Session
from repro_rl.envs.webshop.shop import Shop
from repro_rl.envs.webshop.splits import SPLITS_BY, split_positions
from repro_rl.errors import ConfigError, TaskError, did_you_mean

_PANELS: dict[tuple[Any, ...], TaskPanel] = {}


@lru_cache(maxsize=8)
def _shop(
    folder: Path,
    goal_type: str,
    goals: Path | None,
    prices: Path | None,
    seed: int,
    show_attributes: bool,
) -> Shop:
    """One per process and setting, so that a hundred environments cost little more than one."""
    catalogue = open_catalogue(folder)
    frozen = None if prices is None else read_prices(prices)
    chosen: GoalList
    if goals is None:
        chosen = DrawnGoals(catalogue, goal_type, seed, frozen)
    else:
        chosen = FrozenGoals(read_goals(goals, catalogue), seed, frozen)
    return Shop(catalogue, chosen, seed, show_attributes)


@register_env("webshop")
class WebShopEnv(TextEnv):
    """WebShop: find and buy the product an instruction describes.

    Data: ``data`` is a folder with the original files (``products``, ``attributes``, ``human``: their names
    there, found by the original's names when left out) or one written by ``repro-rl data webshop import``;
    without it a generated catalogue of ``generated`` = (products, seed). ``limit``: only the first so many
    products. Goals: drawn from the data (``goal_type`` "synthetic" or "human", ``seed`` decides prices, caps
    and order), or frozen: ``goals`` and ``prices``, JSON lines. ``max_goals``: a list is cut to so many.
    ``splits``: "product" (no product is the target of two splits) or "position" (0-500 test, 500-1500 eval,
    rest train, as the field does). ``style``: "text" and "text_rich" (the original's), "compact" (the RL
    papers': what follows the instruction, each piece quoted) or "words" (for tiny models, ``words.py``).
    ``reward``: "win" (10 for a purchase of score 1.0, else 0) or "score" (the score of the purchase).
    ``show_attributes``: item pages get the original's optional "Attributes" button.

    Actions are ``search[<query>]`` and ``click[<name>]``; anything else, and what the page does not have,
    changes nothing and gives ``valid=False``, but costs a step. ``info["parts"]`` holds the reward's parts
    after the purchase.

    Raises ConfigError for bad settings, DataError for broken data, naming file, record and field.
    """

    name = "webshop"
    for_people = MappingProxyType({"style": "text_rich"})

    def __init__(
        self,
        data: str | None = None,
        products: str | None = None,
        attributes: str | None = None,
        human: str | None = None,
        goals: str | None = None,
        prices: str | None = None,
        limit: int | None = None,
        generated: tuple[int, int] = (1200, 0),
        goal_type: str = "synthetic",
        seed: int = 0,
        max_goals: int = 100_000,
        splits: str = "product",
        style: str = "text",
        reward: str = "win",
        max_steps: int = 15,
        show_attributes: bool = False,
    ):
        for setting, value, known in (
            ("style", style, pages.STYLES),
            ("reward", reward, ("win", "score")),
            ("goal_type", goal_type, TYPES),
            ("splits", splits, tuple(SPLITS_BY)),
        ):
            if value not in known:
                raise ConfigError(f"WebShop: {setting}={value!r} is unknown{did_you_mean(str(value), known)}")
        for setting, number in (("max_steps", max_steps), ("max_goals", max_goals), ("limit", limit)):
            if number is not None and number < 1:
                raise ConfigError(f"WebShop: {setting}={number}; use 1 or more.")
        count, catalogue_seed = generated
        folder = locate(
            None if data is None else Path(data),
            products,
            attributes,
            human,
            limit=limit,
            generated=(int(count), int(catalogue_seed)),
        )
        self.style, self.reward, self.max_steps = style, reward, max_steps
        self.instructions = instructions(style)
        self._splits, self._max_goals = splits, max_goals
        goals_path, prices_path = _file(data, goals), _file(data, prices)
        self._key = (folder, goal_type, goals_path, prices_path, seed)
        self.shop = _shop(*self._key, show_attributes)
        if not len(self.shop.goals):
            raise ConfigError(
                f"WebShop: the catalogue in {folder} gives no {goal_type} goals; its files hold no "
                f"{'human instructions' if goal_type == 'human' else 'instructions'}. Import them, or use "
                "the other goal_type."
            )
        made = "generated-" if self.shop.catalogue.manifest["source"].get("kind") == "generated" else ""
        # Small or full, synthetic or human: it stands in the name of every figure.
        self._panel_name = f"webshop-{made}{len(self.shop.catalogue)}-{self.shop.goals.name}"
        self._goal: Goal | None = None
        self._over = True

    def panel(self, split: str) -> TaskPanel:
        """The tasks of a split; contents hold goal, catalogue and prices. Raises TaskError on an unknown
        split."""
        known = SPLITS_BY[self._splits]
        if split not in known:
            raise TaskError(
                f"WebShop has no split {split!r} by {self._splits}{did_you_mean(str(split), known)}"
            )
        key = (*self._key, self._splits, self._max_goals, split)
        panel = _PANELS.get(key)
        if panel is None:
            goals = self.shop.goals
            chosen = [
                goals.goal(position)
                for position in split_positions(goals, split, self._splits, self._max_goals, self.shop.seed)
            ]
            panel = TaskPanel(
                self._panel_name, split, tuple(goal.id for goal in chosen), tuple(map(self._content, chosen))
            )
            _PANELS[key] = panel
        return panel

    def _content(self, goal: Goal) -> str:
        """A task is its goal and the shop it is shopped in: the same goal among other products is another."""
        return f"{goal.content()} {self.shop.catalogue.digest} {self.shop.goals.price_key}"

    def goal(self, task_id: str) -> Goal:
        """What a task wants. Raises TaskError on an unknown id."""
        return self.shop.goals.goal(self.shop.goals.position(str(task_id)))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start the task ``options["task"]``; without one, a random task of the training split.

        Raises TaskError on an unknown task.
        """
        super().reset(seed=seed)
        goal = self.goal(self.chosen_task(options, "train", "all"))
        self._goal = goal
        self._session = Session(lambda query: self.shop.search(query, goal), self.shop.item)
        self._words = words.Words(self.shop, goal, self._session) if self.style == "words" else None
        self._steps, self._over = 0, False
        observation, brief = self._observe()
        return observation, self._info(True, brief)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One action. Bad actions never raise; a step after the end of the episode (or before reset) raises
        TaskError."""
        if self._over or self._goal is None:
            raise TaskError("The episode is over (or has not begun); call reset before step.")
        real = self._words.real(str(action)) if self._words is not None else str(action)
        valid = self._session.act(real)
        self._steps += 1
        done = self._session.kind == "done"
        truncated = not done and self._steps >= self.max_steps
        self._over = done or truncated
        observation, brief = self._observe()
        info = self._info(valid, brief)
        reward = info["score"] if self.reward == "score" else 10.0 * info["won"]
        return observation, float(reward), done, truncated, info

    def available_actions(self) -> dict[str, Any]:
        """``has_search_bar`` and ``clickables``, as the original lists them."""
        return {
            "has_search_bar": self._session.kind == "search",
            "clickables": list(self._session.clickables()),
        }

    def parts(self) -> Parts:
        """The reward's parts if the product in hand were bought now. Raises TaskError with none in hand."""
        if self._goal is None or self._session.product < 0:
            raise TaskError("No product is in hand; open one first.")
        return self.shop.appraisal(self._goal, self._session.product).parts(self._session.options)

    def _info(self, valid: bool, brief: str) -> dict[str, Any]:
        session, goal = self._session, self._goal
        assert goal is not None
        parts = self.parts() if session.kind == "done" else None
        score = parts.reward if parts else 0.0
        info: dict[str, Any] = {
            "task_id": goal.id,
            "goal": goal.instruction,
            "admissible": session.admissible() if self._words is None else self._words.admissible(),
            "anchor": self._anchor(),
            "valid": valid,
            "won": score == 1.0,
            "score": score,
            "progress": progress(self.shop, goal, session),
            "brief": brief,
        }
        if parts:
            info["parts"] = parts
        return info

    def _anchor(self) -> str:
        """What the state shows and holds; two ways to it are one state."""
        session = self._session
        if session.kind == "results":
            return f"results {session.page} {len(session.results)} {' '.join(map(str, session.shown()))}"
        if session.kind == "search":
            return "search"
        chosen = " ".join(f"{name}={value}" for name, value in sorted(session.options.items()))
        return f"{session.kind} {session.sub_page} {session.product} {chosen}"

    def _observe(self) -> tuple[str, str]:
        if self._words is not None:
            return self._words.observe()
        if self.style == "text_rich":
            text = pages.rich_text(self._nodes(), self._session.address(), self._session.visited)
            return text, text
        text = self._text()
        if self.style == "compact":
            assert self._goal is not None
            text = pages.compact_text(text, self._goal.instruction)
        return text, text

    def _text(self) -> str:
        session, goal = self._session, self._goal
        assert goal is not None
        if session.kind == "results":
            items = [self.shop.item(number) for number in session.shown()]
            return pages.results_text(goal.instruction, session.page, len(session.results), items)
        if session.kind == "item":
            return pages.item_text(goal.instruction, self.shop.item(session.product))
        return pages.text_of(self._nodes())

    def _nodes(self) -> list[pages.Node]:
        session, goal = self._session, self._goal
        assert goal is not None
        if session.kind == "search":
            return pages.start_nodes(goal.instruction)
        if session.kind == "results":
            items = [self.shop.item(number) for number in session.shown()]
            return pages.results_nodes(goal.instruction, session.page, len(session.results), items)
        item = self.shop.item(session.product)
        if session.kind == "item":
            return pages.item_nodes(goal.instruction, item)
        if session.kind == "sub":
            return pages.sub_nodes(goal.instruction, item, session.sub_page)
        return pages.done_nodes(item.product.asin, session.options, self.parts().reward)

    def expert(self) -> str | None:
        """The next action of a plan that ends in a purchase of score 1.0; None when there is none."""
        if self._goal is None or self._over:
            return None
        if self._words is None:
            queries = map(plain_query, self.shop.queries(self._goal))
            return next_action(self.shop, self._goal, self._session, queries)
        slots = {self._words.expand(query): query for query in reversed(self._words.queries())}
        action = next_action(self.shop, self._goal, self._session, list(slots)[::-1])
        if action is None:
            return None
        if action.startswith("search["):
            return f"search[ {slots[action[len('search[') : -1]]} ]"
        return self._words.short(action)

    def describe(self) -> str:
        """The catalogue, its goals, and who tagged the title nouns."""
        catalogue = self.shop.catalogue
        return (
            f"{self._panel_name}: {len(catalogue)} products (digest {catalogue.digest[:12]}), "
            f"{len(self.shop.goals)} goals, title nouns by {catalogue.manifest['tagger']}"
        )

    def vocabulary(self) -> Iterable[str]:
        """Every word of the ``words`` style; of the others only what demonstrations hold is known."""
        return words.vocabulary() if self.style == "words" else ()


def _file(data: str | None, name: str | None) -> Path | None:
    """A file name as given, or within ``data`` when it is there."""
    if name is None:
        return None
    inside = Path(data or ".") / name
    return inside if inside.is_file() else Path(name)
