"""WebShopEnv: the environment contract over catalogue, goals, session and pages."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from repro_rl.envs.base import TextEnv, read_settings, register_env
from repro_rl.envs.instructions import read_instructions
from repro_rl.envs.panel import TaskPanel
from repro_rl.envs.webshop import pages, words
from repro_rl.envs.webshop.data.catalogue import generated_folder, locate, open_catalogue
from repro_rl.envs.webshop.expert import next_action, plain_query, progress
from repro_rl.envs.webshop.frozen import FrozenGoals, read_goals, read_prices
from repro_rl.envs.webshop.goals import DrawnGoals, Goal, GoalList
from repro_rl.envs.webshop.reader import ShopReader
from repro_rl.envs.webshop.reward import Parts
from repro_rl.envs.webshop.session import Session
from repro_rl.envs.webshop.settings import WebShopSettings
from repro_rl.envs.webshop.shop import Shop
from repro_rl.envs.webshop.splits import SPLITS_BY, split_positions
from repro_rl.envs.webshop.words_reader import WordsReader
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
    """One per process and setting: all environments with the same data share it."""
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

    ``WebShopSettings`` describes the settings: catalogue, goals (drawn from it, or frozen in files), splits,
    style of the pages and reward.

    Actions are ``search[<query>]`` and ``click[<name>]``. Anything else, and a name that the page does not
    have, changes nothing and gives ``valid=False``, but costs a step. ``info["parts"]`` holds the reward's
    parts after the purchase.

    Raises ConfigError for bad settings, DataError for broken data, naming file, record and field.
    """

    name = "webshop"
    settings_schema = WebShopSettings
    free_settings = frozenset(
        {
            *(
                "data",
                "products",
                "attributes",
                "human",
                "limit",
                "generated",
                "goal_type",
                "goals",
                "prices",
            ),
            *("seed", "max_goals", "splits", "max_steps", "reward"),
        }
    )
    for_people = MappingProxyType({"style": "text_rich"})

    def __init__(self, **settings: Any):
        self.settings = chosen = read_settings("WebShop", WebShopSettings, settings)
        if chosen.is_generated:
            folder = generated_folder(*chosen.generated)
        else:
            files = (chosen.products, chosen.attributes, chosen.human)
            folder = locate(chosen.folder, *files, limit=chosen.limit)
        self.max_steps = chosen.max_steps
        texts = read_instructions(Path(__file__).parent)
        self.example_action = "click[back]" if chosen.style == "words" else "search[long red dress]"
        self.instructions = f"{texts.rules}\n{texts.styles[chosen.style]}"
        goals, prices = chosen.file(chosen.goals), chosen.file(chosen.prices)
        self._key = (folder, chosen.goal_type, goals, prices, chosen.seed)
        self.shop = _shop(*self._key, chosen.show_attributes)
        _check_goals(self.shop, chosen.goal_type)
        self._panel_name = _panel_name(self.shop)
        self._goal: Goal | None = None
        self._over = True
        self._seen: list[tuple[str, str, list[str]]] = []  # (action, page, admissible) of this episode
        self._reader: ShopReader | WordsReader | None = None
        self._read = 0  # how many of the pages the reader has read

    def panel(self, split: str) -> TaskPanel:
        """The tasks of a split; contents hold goal, catalogue and prices. Raises TaskError on an unknown
        split."""
        by, limit = self.settings.splits, self.settings.max_goals
        names = SPLITS_BY[by]
        if split not in names:
            raise TaskError(f"WebShop has no split {split!r} by {by}{did_you_mean(str(split), names)}")
        key = (*self._key, by, limit, split)
        panel = _PANELS.get(key)
        if panel is None:
            goals = self.shop.goals
            chosen = [
                goals.goal(position) for position in split_positions(goals, split, by, limit, self.shop.seed)
            ]
            panel = TaskPanel(
                self._panel_name, split, tuple(goal.id for goal in chosen), tuple(map(self._content, chosen))
            )
            _PANELS[key] = panel
        return panel

    def _content(self, goal: Goal) -> str:
        """A task is its goal, catalogue and prices: the same goal among other products is another task."""
        return f"{goal.content()} {self.shop.catalogue.digest} {self.shop.goals.price_key}"

    def goal(self, task_id: str) -> Goal:
        """The goal of a task. Raises TaskError on an unknown id."""
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
        self.session = Session(lambda query: self.shop.search(query, goal), self.shop.item)
        self._words = words.Words(self.shop, goal, self.session) if self.settings.style == "words" else None
        self._steps, self._over = 0, False
        self._seen, self._reader, self._read = [], None, 0
        observation, brief = self._observe()
        info = self._info(True, brief)
        self._see("", observation, info)
        return observation, info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One action. Bad actions never raise; a step after the end of the episode (or before reset) raises
        TaskError."""
        if self._over or self._goal is None:
            raise TaskError("The episode is over (or has not begun); call reset before step.")
        full = self._words.full_action(str(action)) if self._words is not None else str(action)
        valid = self.session.act(full)
        self._steps += 1
        done = self.session.kind == "done"
        truncated = not done and self._steps >= self.max_steps
        self._over = done or truncated
        observation, brief = self._observe()
        info = self._info(valid, brief)
        self._see(str(action), observation, info)
        reward = info["score"] if self.settings.reward == "score" else 10.0 * info["won"]
        return observation, float(reward), done, truncated, info

    def available_actions(self) -> dict[str, Any]:
        """``has_search_bar`` and ``clickables``, as the original lists them."""
        return {
            "has_search_bar": self.session.kind == "search",
            "clickables": list(self.session.clickables()),
        }

    def parts(self) -> Parts:
        """The reward's parts if the open product were bought now. Raises TaskError when none is open."""
        if self._goal is None or self.session.product < 0:
            raise TaskError("No product is open; open one first.")
        return self.shop.appraisal(self._goal, self.session.product).parts(self.session.options)

    def _info(self, valid: bool, brief: str) -> dict[str, Any]:
        session, goal = self.session, self._goal
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
        """Key of the state: what the page shows and which options are chosen, not how it was reached."""
        session = self.session
        if session.kind == "results":
            return (
                f"results {session.page} {len(session.results)} {' '.join(map(str, session.page_products()))}"
            )
        if session.kind == "search":
            return "search"
        chosen = " ".join(f"{name}={value}" for name, value in sorted(session.options.items()))
        return f"{session.kind} {session.sub_page} {session.product} {chosen}"

    def _observe(self) -> tuple[str, str]:
        if self._words is not None:
            return self._words.observe()
        if self.settings.style == "text_rich":
            text = pages.rich_text(self._nodes(), self.session.address(), self.session.visited)
            return text, text
        text = self._text()
        if self.settings.style == "compact":
            assert self._goal is not None
            text = pages.compact_text(text, self._goal.instruction)
        return text, text

    def _text(self) -> str:
        session, goal = self.session, self._goal
        assert goal is not None
        if session.kind == "results":
            items = [self.shop.item(number) for number in session.page_products()]
            return pages.results_text(goal.instruction, session.page, len(session.results), items)
        if session.kind == "item":
            return pages.item_text(goal.instruction, self.shop.item(session.product))
        return pages.text_of(self._nodes())

    def _nodes(self) -> list[pages.Node]:
        session, goal = self.session, self._goal
        assert goal is not None
        if session.kind == "search":
            return pages.start_nodes(goal.instruction)
        if session.kind == "results":
            items = [self.shop.item(number) for number in session.page_products()]
            return pages.results_nodes(goal.instruction, session.page, len(session.results), items)
        item = self.shop.item(session.product)
        if session.kind == "item":
            return pages.item_nodes(goal.instruction, item)
        if session.kind == "sub":
            return pages.sub_nodes(goal.instruction, item, session.sub_page)
        return pages.done_nodes(item.product.asin, session.options, self.parts().reward)

    def picture(self) -> str | None:
        """The page, line by line, in the text_rich style; None before reset.

        Of the last page, most of whose fields are always None, only what was bought and the score.
        """
        if self._goal is None:
            return None
        if self.session.kind == "done":
            asin = self.shop.item(self.session.product).product.asin
            return pages.purchase_text(asin, self.session.options, self.parts().reward)
        return pages.rich_text(self._nodes(), self.session.address(), self.session.visited)

    def expert(self) -> str | None:
        """The next action of a plan that ends in a purchase of score 1.0; None when there is none."""
        if self._goal is None or self._over:
            return None
        if self._words is None:
            queries = map(plain_query, self.shop.queries(self._goal))
            return next_action(self.shop, self._goal, self.session, queries)
        slots = {self._words.expand(query): query for query in reversed(self._words.queries())}
        action = next_action(self.shop, self._goal, self.session, list(slots)[::-1])
        if action is None:
            return None
        if action.startswith("search["):
            return f"search[ {slots[action[len('search[') : -1]]} ]"
        return self._words.short_name(action)

    def _see(self, action: str, observation: str, info: dict[str, Any]) -> None:
        page = observation if self._words is not None or self.session.kind == "done" else self._text()
        self._seen.append((action, page, info["admissible"]))

    def reader(self, seed: int = 0) -> str | None:
        """The next action of an expert that decides by the pages of this episode alone.

        None when the episode is over, and for an instruction in which it finds no words.
        """
        if self._goal is None or self._over:
            return None
        if self._reader is None or self._reader.seed != seed:
            kind = ShopReader if self._words is None else WordsReader
            self._reader, self._read = kind(self.max_steps, seed), 0
        for page in self._seen[self._read :]:
            self._reader.read(*page)
        self._read = len(self._seen)
        return self._reader.next()

    def describe(self) -> str:
        """The catalogue, its goals, and the tagger of the title nouns."""
        catalogue = self.shop.catalogue
        return (
            f"{self._panel_name}: {len(catalogue)} products (digest {catalogue.digest[:12]}), "
            f"{len(self.shop.goals)} goals, title nouns by {catalogue.manifest['tagger']}"
        )

    def vocabulary(self) -> Iterable[str]:
        """Every word of the ``words`` style; empty for the others: words come from the demonstrations."""
        return words.vocabulary() if self.settings.style == "words" else ()


def _check_goals(shop: Shop, goal_type: str) -> None:
    if not len(shop.goals):
        raise ConfigError(
            f"WebShop: the catalogue in {shop.catalogue.folder} gives no {goal_type} goals; its files hold "
            f"no {'human instructions' if goal_type == 'human' else 'instructions'}. Import them, or use the "
            "other goal_type."
        )


def _panel_name(shop: Shop) -> str:
    """Environment name of the panels: it says generated or not, number of products, and kind of goals."""
    generated = shop.catalogue.manifest["source"].get("kind") == "generated"
    return f"webshop-{'generated-' if generated else ''}{len(shop.catalogue)}-{shop.goals.name}"
